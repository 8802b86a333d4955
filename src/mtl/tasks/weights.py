"""Weights of classes in the loss, for tasks some of whose classes are rare: `class_weight` of a recipe."""

from __future__ import annotations

from mtl.config.recipes import ClassWeight
from mtl.errors import UserError, nearest
from mtl.tasks.spec import TaskSpec


def of_classes(class_weight: ClassWeight | None, task: TaskSpec, place: str) -> tuple[float, ...] | None:
    """The weight of each name of `task`, (K,); None where all images count the same.

    `balanced` is n / (K · n_k), where n_k of the n training labels that are known are of the name, as in scikit-learn:
    all names weigh the same in sum. In a mapping, names that are left out weigh 1.

    Raises UserError, whose message begins with `place`, where a weight is of no name of the task, or the task is of
    another kind.
    """
    if class_weight is None:
        return None
    if task.kind != "classes":
        raise UserError(f"{place}: task {task.name} is of the kind {task.kind}, which has no class weights")
    if class_weight == "balanced":
        return tuple(1 / (len(task.names) * share) if share else 0.0 for share in task.frequencies)
    unknown = [name for name in class_weight if name not in task.names]
    if unknown:
        near = nearest(unknown[0], task.names)
        raise UserError(f"{place}: task {task.name} has no class {unknown[0]!r}; did you mean {near!r}?")
    return tuple(class_weight.get(name, 1.0) for name in task.names)
