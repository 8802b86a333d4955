"""Relations: what the answer to one task says about another's, learned from the training labels of both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import combinations, permutations
from typing import Any

import numpy as np
from pydantic import Field

from mtl.config.params import PATH, AnswerName
from mtl.config.settings import Settings
from mtl.errors import UserError
from mtl.tasks import calibration, combining, kinds
from mtl.tasks.answers import Answers
from mtl.tasks.combining import Weights
from mtl.tasks.kinds import classes, value
from mtl.tasks.scores import normalise
from mtl.tasks.spec import TaskSpec
from mtl.tasks.targets import Targets

EXPECTED = 10  # training examples of a pair of labels under independence, so that none at all is a contradiction
FEWEST = 5  # training examples of each class, so that all of one label is no accident
MOST_PAIRS = 1_000_000  # of labels of two tasks; of more nothing is learned, and no table is made
SHARE = 0.5  # of the own model's skill that an answer must have to be worth deriving

Pair = tuple[str, str]  # base and target


class Relation(Settings):
    """What each class of a task of the kind `classes`, the base, says about another task, the target.

    Attributes:
        base, target: the tasks.
        functional: each class of the base goes with one answer to the target.
        table: the mean of the target's labels for each class, (K_base, K_target): of `classes` the share of each name,
            of `multilabel` that of the examples for which each is true, of `value` (K_base, 1) the mean of the
            standardised value. For a class without an example that is known for both, the mean of all.
        impossible: pairs (class of the base, class of the target) that contradict each other.
    """

    base: str
    target: str
    functional: bool
    table: tuple[tuple[float, ...], ...]
    impossible: tuple[tuple[int, int], ...] = ()


class Relations(Settings):
    """The relations between the tasks of a project.

    Attributes:
        pairs: those from which an answer is derived, or whose labels can contradict each other.
        derived: the base of each task for which an answer is derived.
        matrix: what the labels of each two tasks say about each other, as `association` gives it.
        weights: of the own and the derived answer, for each task whose combined answer was fitted.
        answer: of each task that is not answered by its own model: by what.
        residuals: of those of the kind `value` whose model is calibrated: as `TaskSpec.residuals`, of that answer.
    """

    pairs: tuple[Relation, ...] = ()
    derived: dict[str, str] = Field(default_factory=dict)
    matrix: dict[str, dict[str, float | None]] = Field(default_factory=dict)
    weights: dict[str, Weights] = Field(default_factory=dict)
    answer: dict[str, AnswerName] = Field(default_factory=dict)
    residuals: dict[str, tuple[float, float]] = Field(default_factory=dict)

    def of(self, base: str, target: str) -> Relation:
        """The relation between two tasks."""
        return next(pair for pair in self.pairs if (pair.base, pair.target) == (base, target))

    def note(self, task: str) -> dict[str, str]:
        """What an answer to a task says of itself as JSON, where it is not its own model's."""
        return {"answer": self.answer[task]} if task in self.answer else {}

    def meaning(self, spec: TaskSpec) -> TaskSpec:
        """What the answer to a task by its option means: its bounds are not those of its own model's answers."""
        residuals = self.residuals.get(spec.name)
        return spec if residuals is None else spec.model_copy(update={"residuals": residuals})

    def among(self, tasks: Iterable[str]) -> Relations:
        """Those between the `tasks` alone."""
        names = set(tasks)
        pairs = tuple(pair for pair in self.pairs if {pair.base, pair.target} <= names)
        derived = {target: base for target, base in self.derived.items() if {base, target} <= names}
        weights = {target: pair for target, pair in self.weights.items() if target in derived}
        answer = {target: name for target, name in self.answer.items() if target in derived}
        residuals = {target: bounds for target, bounds in self.residuals.items() if target in derived}
        return Relations(
            pairs=pairs, derived=derived, matrix=self.matrix, weights=weights, answer=answer, residuals=residuals
        )


UNRELATED = Relations()


def learn(specs: Mapping[str, TaskSpec], targets: Mapping[str, Targets]) -> Relations:
    """All relations from bases of the kind `classes`, from the training labels of each task.

    `derived` holds the functional ones, the base with the most names, of several the first.
    """
    found = [
        _relate(specs[base], specs[target], targets[base], targets[target])
        for base, target in permutations(specs, 2)
        if specs[base].kind == "classes"
        and specs[target].kind in ("classes", "multilabel", "value")
        and len(specs[base].names) * len(specs[target].names) <= MOST_PAIRS
    ]
    derived: dict[str, str] = {}
    for relation in (relation for relation in found if relation.functional):
        earlier = derived.get(relation.target)
        if earlier is None or len(specs[relation.base].names) > len(specs[earlier].names):
            derived[relation.target] = relation.base
    return Relations(pairs=tuple(found), derived=derived, matrix=_matrix(specs, targets))


def bases(relations: Relations, target: str) -> list[str]:
    """The tasks whose labels say something of the target's, by `learn`; that which says most comes first."""
    of_target = relations.matrix.get(target, {})
    known = [pair.base for pair in relations.pairs if pair.target == target and of_target[pair.base] is not None]
    return sorted(known, key=lambda base: -(of_target[base] or 0))


def check_asked(relations: Relations, asked: Mapping[str, AnswerName], validation: Mapping[str, np.ndarray]) -> None:
    """Raise UserError where the answer that is asked for cannot be made.

    Args:
        relations: as `learn` returns them.
        asked: for some tasks the answer that `params.yaml` asks for.
        validation: for each task the validation examples of which a label is known, bool (N,).
    """
    for task, name in asked.items():
        place = f"{PATH}: tasks.{task}.answer: {name}"
        if not bases(relations, task):
            raise UserError(f"{place}: no training label of another task says anything of {task}'s; take own")
        if name == "combined" and not validation[task].any():
            raise UserError(f"{place} is weighted on the validation images, and none has a label of {task}; take own")


def choose(
    relations: Relations, validation: Mapping[str, Answers], asked: Mapping[str, AnswerName] | None = None
) -> Relations:
    """The relations that are used, by the answers of each task's model to the validation examples.

    An answer is derived where the relation is functional, where its skill is at least SHARE of the own model's, or
    where `asked` has it. Its base is the one whose derived answer has the lowest loss. Without validation examples
    `derived` stays as it is, and nothing is combined.

    Raises:
        UserError: an answer that is `asked` for, by task, cannot be made.
    """
    asked = dict(asked or {})
    check_asked(relations, asked, {task: own.has_label for task, own in validation.items()})
    derived = {task: bases(relations, task)[0] for task in asked} | relations.derived
    for target, own in validation.items():
        if not own.has_label.any():
            continue
        kind, least = kinds.find(own.task.kind), kinds.find(own.task.kind).judge(own.judged())["skill"]
        losses = {}
        for relation in relations.pairs:
            if relation.target != target or relation.base not in validation:
                continue
            answers = replace(own, outputs=derive(relation, validation[relation.base].outputs, own.task)).judged()
            skill = kind.judge(answers)["skill"]
            worth = skill is not None and least is not None and skill >= SHARE * least > 0
            if relation.functional or worth or (target in asked and relation.base in bases(relations, target)):
                losses[relation.base] = kind.loss_of(replace(answers, loss="auto"))
        if losses:
            derived[target] = min(losses, key=losses.__getitem__)
    used = tuple(pair for pair in relations.pairs if pair.impossible or derived.get(pair.target) == pair.base)
    weights = {
        target: combining.fit_weights(a, derive(relations.of(derived[target], target), base.outputs, a.task))
        for target, a in validation.items()
        if (base := validation.get(derived.get(target, ""))) is not None and a.has_label.any()
    }
    chosen = Relations(pairs=used, derived=derived, matrix=relations.matrix, weights=weights, answer=asked)
    outputs, residuals = {task: a.outputs for task, a in validation.items()}, {}
    for task in asked:
        a = validation[task]
        if a.task.residuals is not None and a.has_label.any():
            answers = replace(a, outputs=answered(chosen, outputs, a.task)).judged()
            calibrated = kinds.find(a.task.kind).calibrate(answers, calibration.temperature)
            residuals[task] = calibrated.residuals
    return chosen.model_copy(update={"residuals": residuals})


def derive(relation: Relation, outputs: np.ndarray, target: TaskSpec) -> np.ndarray:
    """The answer to the target, (N, K_target), that outputs of the base's model, (N, K_base), imply: Σ P(k) E[·|k]."""
    table = np.array(relation.table)
    if target.kind == "classes" and relation.functional:
        return np.asarray(outputs @ table)
    mean = normalise(outputs) @ table
    return value.in_unit(target, mean) if target.kind == "value" else mean


def combined(relations: Relations, answers: Mapping[str, np.ndarray], target: TaskSpec) -> np.ndarray:
    """The combined answer to the target, (N, K_target), from the outputs of its model and its base's by task."""
    base = relations.derived[target.name]
    implied = derive(relations.of(base, target.name), answers[base], target)
    return combining.combine(target, answers[target.name], implied, relations.weights[target.name])


def needed(relations: Relations, task: str) -> tuple[str, ...]:
    """The tasks whose models are asked for the answer to a task by its option: its own, its base's, or both."""
    name = relations.answer.get(task, "own")
    if name == "own":
        return (task,)
    return (relations.derived[task],) if name == "derived" else (task, relations.derived[task])


def answered(relations: Relations, outputs: Mapping[str, np.ndarray], target: TaskSpec) -> np.ndarray:
    """The answer to a task by its option, float32 (N, K), from the outputs of the models that `needed` names."""
    name = relations.answer.get(target.name, "own")
    if name == "own":
        return outputs[target.name]
    if name == "combined":
        return combined(relations, outputs, target).astype(np.float32)
    base = relations.derived[target.name]
    return derive(relations.of(base, target.name), outputs[base], target).astype(np.float32)


def contradictions(relations: Relations, labels: Mapping[str, np.ndarray]) -> dict[Pair, np.ndarray]:
    """For each pair of tasks whose labels can contradict each other the examples where they do, bool (N,).

    `labels`: the label that the model of each task of the kind `classes` names for each example, int (N,).
    """
    contradicted = {}
    for pair in relations.pairs:
        if pair.impossible and pair.base in labels and pair.target in labels:
            table = np.zeros((len(pair.table), len(pair.table[0])), bool)
            table[tuple(np.array(pair.impossible).T)] = True
            contradicted[pair.base, pair.target] = table[labels[pair.base], labels[pair.target]]
    return contradicted


def _relate(base: TaskSpec, target: TaskSpec, of_base: Targets, of_target: Targets) -> Relation:
    known, count, names = of_base.known & of_target.any_known, len(base.names), len(target.names)
    labels = of_base.labels[known].astype(int)
    if target.kind == "classes":
        pairs = labels * names + of_target.labels[known].astype(int)
        sums = np.bincount(pairs, minlength=count * names).reshape(count, names).astype(float)
        totals = sums.sum(axis=1, keepdims=True)
    else:
        numbers = _numbers(target, of_target)[known]
        weights = of_target.known[known].reshape(numbers.shape).astype(float)
        sums, totals = np.zeros((count, names)), np.zeros((count, names))
        np.add.at(sums, labels, numbers * weights)
        np.add.at(totals, labels, weights)
    overall = sums.sum(axis=0) / np.maximum(totals.sum(axis=0), 1)
    table = np.where(totals > 0, sums / np.maximum(totals, 1), overall)
    functional = _is_functional(base, target, table, totals)
    impossible: list[tuple[int, int]] = []
    # What a functional relation implies is certain, anything else by enough examples. Each two tasks once.
    if target.kind == "classes" and (len(base.names), base.name) > (len(target.names), target.name):
        expected = totals * sums.sum(axis=0) / max(len(labels), 1)
        never = (sums == 0) & ((expected >= EXPECTED) | functional)
        impossible = [(int(i), int(j)) for i, j in np.argwhere(never)]
    return Relation(
        base=base.name,
        target=target.name,
        functional=functional,
        table=tuple(map(tuple, table.tolist())),
        impossible=tuple(impossible),
    )


def _numbers(spec: TaskSpec, targets: Targets) -> np.ndarray:
    """The labels of a task of the kind `multilabel` or `value`, whose mean is the answer, float64 (N, K)."""
    if spec.kind == "value":
        return np.where(targets.known, value.standardised(spec, targets.labels), 0.0)[:, None]
    return targets.labels.astype(float)


def _is_regrouped(base: TaskSpec, target: TaskSpec) -> bool:
    """Whether both tasks group the same values of one column."""
    return base.columns == target.columns and base.groups.keys() == target.groups.keys()


def _is_functional(base: TaskSpec, target: TaskSpec, table: np.ndarray, totals: np.ndarray) -> bool:
    """Whether each class of `base`, which has more names, goes with one answer, by construction or by the examples."""
    if target.kind == "value" or len(base.names) <= len(target.names):
        return False
    certain = bool(np.isin(table, (0.0, 1.0)).all())
    return certain and (_is_regrouped(base, target) or bool((totals >= FEWEST).all()))


def _matrix(specs: Mapping[str, TaskSpec], targets: Mapping[str, Targets]) -> dict[str, dict[str, float | None]]:
    matrix: dict[str, dict[str, float | None]] = {name: {} for name in specs}
    for one, other in combinations(specs, 2):
        measured = association(specs[one], targets[one], specs[other], targets[other])
        matrix[one][other] = matrix[other][one] = measured
    return matrix


def association(one: TaskSpec, of_one: Targets, other: TaskSpec, of_other: Targets) -> float | None:
    """What the labels of two tasks say about each other, from 0, nothing, to 1, all; the same both ways.

    Of two names or yes-or-no labels the normalised mutual information (scikit-learn's, by the arithmetic mean of the
    entropies); of one of them and a value the share of its variance that lies between the groups (η²); of two values
    the square of their correlation. Values are transformed as the network learns them. Of several labels the mean.
    None where no example is known for both.
    """
    measured = [
        _associate(first, second) for first in _variables(one, of_one) for second in _variables(other, of_other)
    ]
    defined = [number for number in measured if number is not None]
    return float(np.mean(defined)) if defined else None


def _variables(spec: TaskSpec, targets: Targets) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each label with which of its values are known: whole numbers for names, floats for a value."""
    if spec.kind == "value":
        return [(value.transformed(spec, targets.labels), targets.known)]
    if targets.labels.ndim == 1:
        return [(targets.labels.astype(int), targets.known)]
    return list(zip(targets.labels.astype(int).T, targets.known.T, strict=True))


def _associate(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> float | None:
    from sklearn.metrics import normalized_mutual_info_score

    known = first[1] & second[1]
    a, b = first[0][known], second[0][known]
    if not len(a):
        return None
    numbers = [variable.dtype.kind == "f" for variable in (a, b)]
    if not any(numbers):
        return float(normalized_mutual_info_score(a, b))
    if all(numbers):
        return float(np.corrcoef(a, b)[0, 1] ** 2) if np.ptp(a) > 0 and np.ptp(b) > 0 else None
    groups, values = (b, a) if numbers[0] else (a, b)
    if np.ptp(values) == 0:
        return None
    count = np.bincount(groups)
    means = np.bincount(groups, weights=values) / np.maximum(count, 1)
    return float((count * (means - values.mean()) ** 2).sum() / ((values - values.mean()) ** 2).sum())


def read(content: Any) -> Relations:
    """The relations that a JSON document holds; none where it is of an earlier version."""
    return Relations.model_validate(content) if isinstance(content, dict) and "pairs" in content else Relations()


def labels_of(specs: Mapping[str, TaskSpec], outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The label that each model of the kind `classes` names, from outputs (N, K), as `contradictions` takes them."""
    return {task: classes.predicted(outputs[task]) for task, spec in specs.items() if spec.kind == "classes"}


def contradicted_by(relations: Relations, answers: Mapping[str, Answers]) -> dict[Pair, np.ndarray]:
    """`contradictions` between the answers of some models."""
    specs, outputs = ({name: getattr(a, part) for name, a in answers.items()} for part in ("task", "outputs"))
    return contradictions(relations, labels_of(specs, outputs))
