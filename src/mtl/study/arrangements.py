"""Independent, shared or derived: which networks answer all tasks, at the same cost of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, get_args

import numpy as np
from pydantic import Field, field_validator

from mtl.config.params import Name
from mtl.config.recipes import Recipe
from mtl.config.settings import Settings
from mtl.data import store
from mtl.errors import UserError
from mtl.tasks import relations, scores
from mtl.tasks.answers import Answers
from mtl.tasks.relations import Relations

Arrangement = Literal["independent", "shared", "derived"]


class Study(Settings):
    """study/params.yaml. The recipe's epochs are those of each independent network."""

    arrangements: Annotated[tuple[Arrangement, ...], Field(min_length=1)]
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Field(min_length=1)]
    loss_weights: dict[Name, Annotated[float, Field(gt=0)]]
    recipe: Recipe

    @field_validator("arrangements", "seeds")
    @classmethod
    def _is_listed_once(cls, values: tuple[object, ...]) -> tuple[object, ...]:
        if len(set(values)) < len(values):
            raise ValueError("one of them is listed twice; list it once")
        return values

    @field_validator("recipe")
    @classmethod
    def _is_the_same_everywhere(cls, recipe: Recipe) -> Recipe:
        if recipe.precision == "auto":
            raise ValueError("precision must be stated here: float32 or mixed_bfloat16")
        if recipe.keep != "last":
            raise ValueError("keep must be 'last' here: arrangements are compared after all their epochs")
        return recipe


@dataclass(frozen=True)
class Network:
    """One network of an arrangement: the tasks that it has heads for, and how long it is trained."""

    tasks: tuple[str, ...]
    epochs: int


def questions() -> dict[str, Answers]:
    """The right answers of every task in data/labels on the test images, those of models left out: (0, K).

    Raises UserError for a task of another kind than `classes`, whose loss and score the study could not compare.
    """
    tasks = {}
    for name in store.labelled_tasks():
        task, (labels, known) = store.read_task(name), store.read_targets(name, "test")
        if task.kind != "classes":
            raise UserError(
                f"the study compares tasks of the kind classes, and {name} is of the kind {task.kind}; leave it out of"
                " params.yaml while the study runs"
            )
        tasks[name] = Answers(task, labels, np.empty((0, len(task.names)), np.float32), known=known)
    return tasks


def related(tasks: Mapping[str, Answers]) -> Relations:
    """The relations between the tasks, from their training labels."""
    return relations.learn(
        {name: a.task for name, a in tasks.items()}, {name: store.read_targets(name, "train") for name in tasks}
    )


def networks(arrangement: str, tasks: Mapping[str, Answers], epochs: int) -> list[Network]:
    """The networks of an arrangement. Each arrangement sees the same number of images in training.

    `independent` has a network per task, trained for `epochs`. `shared` and `derived` have a single one, trained for
    `epochs` times the number of tasks: with a head per task, or for the task with most labels that implies another.
    Where no task implies another there is nothing to derive, and the list is empty.

    Raises:
        UserError: no arrangement has that name.
    """
    if arrangement not in get_args(Arrangement):
        raise UserError(f"there is no arrangement {arrangement!r}; known: {', '.join(get_args(Arrangement))}")
    if arrangement == "independent":
        return [Network((task,), epochs) for task in tasks]
    if arrangement == "shared":
        return [Network(tuple(tasks), epochs * len(tasks))]
    bases = set(related(tasks).derived.values())
    finest = max(sorted(bases), key=lambda task: len(tasks[task].task.names), default=None)
    return [] if finest is None else [Network((finest,), epochs * len(tasks))]


def weights(study: Study, tasks: Sequence[str]) -> dict[str, float]:
    """The weight of each task's loss in the shared network, by default 1. Raises UserError for an unknown task."""
    unknown = [task for task in study.loss_weights if task not in tasks]
    if unknown:
        raise UserError(f"study/params.yaml: loss_weights: there is no task {unknown[0]!r}; known: {', '.join(tasks)}")
    return {task: study.loss_weights.get(task, 1.0) for task in tasks}


def recipe(study: Study, network: Network, tasks: Mapping[str, Answers]) -> Recipe:
    """The recipe of one network: the study's, with its epochs and the sizes of its heads."""
    sizes = [len(tasks[task].task.names) for task in network.tasks]
    options = study.recipe.options | ({"heads": sizes} if len(sizes) > 1 else {})
    return study.recipe.model_copy(update={"epochs": network.epochs, "options": options})


def answers(tasks: Mapping[str, Answers], probabilities: Mapping[str, np.ndarray]) -> dict[str, Answers]:
    """The answers of an arrangement: a network's probabilities, or those that the finest task's imply.

    Args:
        tasks: labels and classes of every task; their outputs are not read.
        probabilities: float32 (N, K), of the tasks that have a head.

    Returns:
        Tasks that are neither answered nor implied are left out.
    """
    answered = {task: replace(tasks[task], outputs=p) for task, p in probabilities.items()}
    known = related(tasks)
    for task in [task for task in tasks if task not in probabilities]:
        pairs = [pair for pair in known.pairs if pair.target == task and pair.functional and pair.base in answered]
        if pairs:
            finest = max(pairs, key=lambda pair: len(pair.table))
            outputs = relations.derive(finest, probabilities[finest.base], tasks[task].task)
            answered[task] = replace(tasks[task], outputs=outputs)
    return answered


def judge(answered: Mapping[str, Answers]) -> dict[str, dict[str, float]]:
    """Accuracy `acc` and negative log-likelihood `nll` in nats of every task that is answered."""
    return {
        task: {"acc": scores.accuracy(a.outputs, a.labels), "nll": scores.nll(a.outputs, a.labels)}
        for task, a in ((task, every.judged()) for task, every in answered.items())
    }
