"""Tasks: groups of the data set's classes become label arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtl.config.params import PATH, Task
from mtl.errors import UserError


def group_classes(name: str, task: Task, classes: Sequence[str]) -> dict[str, str]:
    """Map each class of the data set to its group in `task`, in the order of `classes`.

    Raises UserError where the task names a class that is not there, or leaves one out.
    """
    if task.labels is None:
        return {c: c for c in classes}
    of_class = {c: group for group, members in task.labels.items() for c in members}
    unknown = [c for c in of_class if c not in classes]
    if unknown:
        raise UserError(
            f"{PATH}: tasks.{name}.labels.{of_class[unknown[0]]}: the data set has no class {unknown[0]!r};"
            f" it has {', '.join(classes)}"
        )
    missing = [c for c in classes if c not in of_class]
    if missing:
        raise UserError(
            f"{PATH}: tasks.{name}.labels: class {missing[0]!r} is in no group;"
            f" add it to one of {', '.join(task.labels)}"
        )
    return {c: of_class[c] for c in classes}


def group_names(task: Task, classes: Sequence[str]) -> tuple[str, ...]:
    """The names of the labels of `task`, in label order: as params.yaml lists its groups."""
    return tuple(classes) if task.labels is None else tuple(task.labels)


def derive(y: np.ndarray, of_class: dict[str, str], names: Sequence[str]) -> np.ndarray:
    """Labels of a task, uint8 (N,), from the data set's labels `y`, uint8 (N, 1)."""
    label_of = np.array([names.index(group) for group in of_class.values()], np.uint8)
    return label_of[y.ravel()]
