"""Weights of classes in the loss, for tasks some of whose classes are rare: `class_weight` of a recipe."""

from __future__ import annotations

from collections.abc import Sequence

from mtl.config.params import PATH, Params
from mtl.config.recipes import ClassWeight
from mtl.errors import UserError, nearest
from mtl.tasks.spec import TaskSpec


def of_task(settings: Params, task: TaskSpec) -> tuple[float, ...] | None:
    """The weights of the classes of `task` by its recipe, as `of_classes`."""
    recipe = settings.tasks[task.name].recipe
    return of_classes(settings.recipes[recipe].class_weight, task, f"{PATH}: recipes.{recipe}.class_weight")


def of_classes(class_weight: ClassWeight | None, task: TaskSpec, place: str) -> tuple[float, ...] | None:
    """The weight of each name of `task`, (K,); None where all images count the same.

    `balanced` is n / (K · n_k), where n_k of the n training labels that are known are of the name, as in scikit-learn:
    all names weigh the same in sum. In a mapping, names that are left out weigh 1.

    Raises UserError as `check`.
    """
    if class_weight is None:
        return None
    if class_weight == "balanced":
        return tuple(1 / (len(task.names) * share) if share else 0.0 for share in task.frequencies)
    check(class_weight, task.name, task.names, place)
    return tuple(class_weight.get(name, 1.0) for name in task.names)


def check(class_weight: ClassWeight | None, task: str, names: Sequence[str], place: str) -> None:
    """Raise UserError, whose message begins with `place`, where a weight is of none of the `names` of `task`."""
    unknown = [name for name in class_weight if name not in names] if isinstance(class_weight, dict) else []
    if unknown:
        raise UserError(
            f"{place}: task {task} has no class {unknown[0]!r}; did you mean {nearest(unknown[0], names)!r}?"
        )
