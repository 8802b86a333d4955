"""Independent, shared or derived: which networks answer all tasks, at the same cost of training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import numpy as np
from pydantic import Field, field_validator

from mtl.config.params import Name
from mtl.config.recipes import Recipe
from mtl.config.settings import Settings
from mtl.data import store
from mtl.errors import UserError
from mtl.tasks import calibration, combining, heads, kinds, relations
from mtl.tasks.answers import Answers
from mtl.tasks.columns import SPLITS, Split
from mtl.tasks.relations import Relation, Relations
from mtl.tasks.spec import TaskSpec
from mtl.tasks.targets import Head, Targets
from mtl.tasks.weights import of_classes

Arrangement = Literal["independent", "shared", "uncertainty", "derived"]
HELD_OUT: tuple[Split, ...] = ("validation", "test")  # judged together: no arrangement chooses anything by either
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

    @property
    def held_out(self) -> Targets:
        """The labels of the images that answers are judged on: those of each split of HELD_OUT in turn."""
        parts = zip(*(self.targets[split] for split in HELD_OUT), strict=True)
        return Targets(*(np.concatenate(of_splits) for of_splits in parts))


@dataclass(frozen=True)
class Half:
    """The answers to all held-out images, with what is fitted on one half of them: those to the other are judged.

    Attributes:
        fitted_on: that half, bool (N,).
        own: the answers of the networks, by task.
        implied: what they imply, (N, K), by the task that it answers.
    """

    fitted_on: np.ndarray
    own: Mapping[str, Answers]
    implied: Mapping[str, np.ndarray]


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


def halves(study: Study, tasks: Mapping[str, Question], outputs: Mapping[str, np.ndarray]) -> tuple[Half, Half]:
    """The answers of networks with what is fitted on every second held-out image, and on the others.

    The halves are those of the images and not of a task's labels, as what is fitted for one task on an image goes into
    the answer that is derived for another. Where a half does not allow that a task is calibrated, a line says why.

    Args:
        study: its recipe says whether they are calibrated.
        tasks: every task.
        outputs: float32 (N, K), of the tasks that have a head.
    """
    plain = {task: _answered(tasks[task], p) for task, p in outputs.items()}
    pairs = implying(tasks, set(outputs))
    odd = np.arange(len(next(iter(outputs.values()), ()))) % 2 == 1

    def fitted_on(half: np.ndarray) -> Half:
        own = {task: _calibrated(study, a, half) for task, a in plain.items()}
        implied = {t: relations.derive(pair, own[pair.base].outputs, tasks[t].task) for t, pair in pairs.items()}
        return Half(half, own, implied)

    return fitted_on(~odd), fitted_on(odd)


def _answered(question: Question, outputs: np.ndarray) -> Answers:
    labels, known = question.held_out
    return Answers(question.task, labels, outputs, known=known)


def _calibrated(study: Study, answers: Answers, half: np.ndarray) -> Answers:
    """The answers, all with the temperature that a half of them shows, where it shows one."""
    shown = answers.at(half).judged()
    if study.recipe.calibrate == "none" or not len(shown.labels):
        return answers
    try:
        temperature = kinds.find(answers.task.kind).calibrate(shown, calibration.temperature).temperature
    except UserError as error:
        print(f"{answers.task.name}: not calibrated by a half of the held-out images: {error}", flush=True)
        return answers
    return answers if temperature is None else calibration.tempered(answers, temperature)


def implying(tasks: Mapping[str, Question], answered: Collection[str]) -> dict[str, Relation]:
    """For each task that one of the `answered` implies the relation from the finest of these.

    Implied are tasks whose relation is functional, and others than `classes` of which the base's labels explain at
    least EXPLAINED.
    """
    known = related(tasks)

    def is_implied(pair: Relation) -> bool:
        explained = known.matrix[pair.base].get(pair.target) or 0.0
        return pair.functional or (tasks[pair.target].task.kind != "classes" and explained >= EXPLAINED)

    pairs = [pair for pair in known.pairs if pair.base in answered and is_implied(pair)]
    finest: dict[str, Relation] = {}
    for pair in sorted(pairs, key=lambda pair: -len(pair.table)):
        finest.setdefault(pair.target, pair)
    return finest


def answers(tasks: Mapping[str, Question], fitted: tuple[Half, Half]) -> dict[str, Answers]:
    """The answers of an arrangement: its networks', or where a task has none those that the finest task's imply.

    Tasks that are neither answered nor implied are left out.
    """
    return _joined(tasks, fitted, lambda half: {**half.implied, **{task: a.outputs for task, a in half.own.items()}})


def combined(tasks: Mapping[str, Question], fitted: tuple[Half, Half]) -> dict[str, Answers]:
    """The combined answers to the tasks that have an own answer and an implied one; others are left out."""

    def of(half: Half) -> dict[str, np.ndarray]:
        outputs = {}
        for task, a in half.own.items():
            shown = a.at(half.fitted_on)
            if task in half.implied and shown.has_label.any():
                weights = combining.fit_weights(shown, half.implied[task][half.fitted_on])
                outputs[task] = combining.combine(a.task, a.outputs, half.implied[task], weights)
        return outputs

    return _joined(tasks, fitted, of)


def _joined(
    tasks: Mapping[str, Question], fitted: tuple[Half, Half], of: Callable[[Half], Mapping[str, np.ndarray]]
) -> dict[str, Answers]:
    """The answers to each image by what is fitted on the half that it is not in, of the tasks that both answer."""
    one, other = (of(half) for half in fitted)
    first = fitted[0].fitted_on[:, None]
    return {task: _answered(tasks[task], np.where(first, other[task], p)) for task, p in one.items() if task in other}


def judge(answered: Mapping[str, Answers]) -> dict[str, dict[str, float | None]]:
    """The primary `score` and the `skill` of every task that is answered; of `classes` also `acc` and `nll`."""
    judged = {}
    for task, a in answered.items():
        kind = kinds.find(a.task.kind)
        figures = kind.judge(a.judged())
        judged[task] = {"score": figures[next(iter(kind.SCORES))], "skill": figures["skill"]}
        judged[task] |= {key: figures[key] for key in ("acc", "nll") if key in figures}
    return judged
