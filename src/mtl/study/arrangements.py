"""Independent, shared or derived: which networks answer all tasks, at the same cost of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import numpy as np
from pydantic import Field, field_validator

from mtl.config.params import Name
from mtl.config.recipes import Recipe
from mtl.config.settings import Settings
from mtl.data import store
from mtl.errors import UserError
from mtl.tasks import heads, kinds, relations
from mtl.tasks.answers import Answers
from mtl.tasks.columns import SPLITS, Split
from mtl.tasks.relations import Relation, Relations
from mtl.tasks.spec import TaskSpec
from mtl.tasks.targets import Head, Targets
from mtl.tasks.weights import of_classes

Arrangement = Literal["independent", "shared", "uncertainty", "derived"]
EXPLAINED = 0.5  # share of a task that the labels of the base must explain, where it does not imply the answer


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
        if recipe.mirror or recipe.calibrate != "none":
            raise ValueError("mirror and calibrate must be left out here: arrangements are compared as trained")
        return recipe


@dataclass(frozen=True)
class Network:
    """One network of an arrangement: the tasks that it has heads for, and how long it is trained."""

    tasks: tuple[str, ...]
    epochs: int


@dataclass(frozen=True)
class Question:
    """A task of the study: what its answers mean, and its labels on the images of each split."""

    task: TaskSpec
    targets: Mapping[Split, Targets]


def questions() -> dict[str, Question]:
    """Every task in data/labels."""
    return {
        name: Question(store.read_task(name), {split: store.read_targets(name, split) for split in SPLITS})
        for name in store.labelled_tasks()
    }


def related(tasks: Mapping[str, Question]) -> Relations:
    """The relations between the tasks, from their training labels."""
    return relations.learn(
        {name: question.task for name, question in tasks.items()},
        {name: question.targets["train"] for name, question in tasks.items()},
    )


def networks(arrangement: str, tasks: Mapping[str, Question], epochs: int) -> list[Network]:
    """The networks of an arrangement. Each arrangement sees the same number of images in training.

    `independent` has a network per task, trained for `epochs`. The others have a single one, trained for `epochs` times
    the number of tasks: `shared` and `uncertainty` with a head per task, `derived` for the task with most labels that
    implies another. Where no task implies another there is nothing to derive, and the list is empty.

    Raises:
        UserError: no arrangement has that name.
    """
    if arrangement not in get_args(Arrangement):
        raise UserError(f"there is no arrangement {arrangement!r}; known: {', '.join(get_args(Arrangement))}")
    if arrangement == "independent":
        return [Network((task,), epochs) for task in tasks]
    if arrangement in ("shared", "uncertainty"):
        return [Network(tuple(tasks), epochs * len(tasks))]
    bases = set(related(tasks).derived.values())
    finest = max(sorted(bases), key=lambda task: len(tasks[task].task.names), default=None)
    return [] if finest is None else [Network((finest,), epochs * len(tasks))]


def weights(study: Study, tasks: Mapping[str, Question]) -> dict[str, float]:
    """The weight of each task's loss in a shared network: that of the study, by default 1, over `constant_loss`.

    So a loss of 1 is what an answer without looking gives, whatever the kind. Raises UserError for an unknown task.
    """
    unknown = [task for task in study.loss_weights if task not in tasks]
    if unknown:
        raise UserError(f"study/params.yaml: loss_weights: there is no task {unknown[0]!r}; known: {', '.join(tasks)}")
    return {
        task: study.loss_weights.get(task, 1.0) / constant_loss(study, question) for task, question in tasks.items()
    }


def constant_loss(study: Study, question: Question) -> float:
    """The loss on the training labels of the constant answer, by the study's recipe."""
    task, (labels, known) = question.task, question.targets["train"]
    constant = np.tile(kinds.find(task.kind).constant(task), (len(labels), 1)).astype(np.float32)
    loss = heads.loss_name(study.recipe, task.kind, f"study/params.yaml: recipe.loss: {task.name}")
    return kinds.find(task.kind).loss_of(Answers(task, labels, constant, loss, known).judged())


def of_network(study: Study, network: Network, tasks: Mapping[str, Question]) -> tuple[Head, ...]:
    """The heads of a network; of a single one the loss has the weight 1."""
    of_task = weights(study, tasks) if len(network.tasks) > 1 else {}
    found = []
    for name in network.tasks:
        spec = tasks[name].task
        class_weights = of_classes(study.recipe.class_weight, spec, "study/params.yaml: recipe.class_weight")
        targets = [tasks[name].targets["train"], tasks[name].targets["validation"]]
        # In a network of its own an example without a label is left out; beside others it has no weight.
        gaps = not all(part.known.all() for part in targets)
        if len(network.tasks) == 1:
            gaps = not all(part.known[part.any_known].all() for part in targets)
        loss = heads.loss_name(study.recipe, spec.kind, f"study/params.yaml: recipe.loss: {name}")
        weight = of_task.get(name, 1.0)
        found.append(Head(len(spec.names), weight, class_weights, kind=spec.kind, loss=loss, gaps=gaps))
    return tuple(found)


def recipe(study: Study, network: Network, tasks: Mapping[str, Question], arrangement: str = "shared") -> Recipe:
    """The recipe of one network: the study's, with its epochs and the sizes of its heads."""
    sizes = [len(tasks[task].task.names) for task in network.tasks]
    options = study.recipe.options | ({"heads": sizes} if len(sizes) > 1 else {})
    if arrangement == "uncertainty" and len(sizes) > 1:
        options |= {"uncertainty": True}
    return study.recipe.model_copy(update={"epochs": network.epochs, "options": options})


def answers(tasks: Mapping[str, Question], outputs: Mapping[str, np.ndarray]) -> dict[str, Answers]:
    """The answers of an arrangement: a network's outputs, or those that the finest task's imply.

    Args:
        tasks: every task.
        outputs: float32 (N, K), of the tasks that have a head.

    Returns:
        Tasks that are neither answered nor implied are left out. Implied are those whose relation is functional, and
        others than `classes` of which the base's labels explain at least EXPLAINED.
    """
    test = {name: question.targets["test"] for name, question in tasks.items()}

    def answered_by(task: str, p: np.ndarray) -> Answers:
        return Answers(tasks[task].task, test[task].labels, p, known=test[task].known)

    answered, known = {task: answered_by(task, p) for task, p in outputs.items()}, related(tasks)

    def is_implied(pair: Relation) -> bool:
        explained = known.matrix[pair.base].get(pair.target) or 0.0
        return pair.functional or (tasks[pair.target].task.kind != "classes" and explained >= EXPLAINED)

    for task in [task for task in tasks if task not in outputs]:
        pairs = [pair for pair in known.pairs if pair.target == task and pair.base in outputs and is_implied(pair)]
        if pairs:
            finest = max(pairs, key=lambda pair: len(pair.table))
            implied = relations.derive(finest, outputs[finest.base], tasks[task].task)
            answered[task] = answered_by(task, implied)
    return answered


def judge(answered: Mapping[str, Answers]) -> dict[str, dict[str, float | None]]:
    """The primary `score` and the `skill` of every task that is answered; of `classes` also `acc` and `nll`."""
    judged = {}
    for task, a in answered.items():
        kind = kinds.find(a.task.kind)
        figures = kind.judge(a.judged())
        judged[task] = {"score": figures[next(iter(kind.SCORES))], "skill": figures["skill"]}
        judged[task] |= {key: figures[key] for key in ("acc", "nll") if key in figures}
    return judged
