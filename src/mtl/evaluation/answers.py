"""The answers of a task's model to some examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from mtl.config.recipes import LossName
from mtl.errors import UserError
from mtl.tasks import relations, scores
from mtl.tasks.relations import Relation
from mtl.tasks.spec import TaskSpec

ROUNDING = 1e-5  # a float32 softmax may be that much above 1


@dataclass(frozen=True)
class Answers:
    """The answers of one task's model to some examples, with the right ones where these are known.

    Attributes:
        task: what the answers mean.
        labels: the right labels, uint8 or uint16 (N,).
        probabilities: float32 (N, K), each in [0, 1]; rows need not sum to one.
        loss: name of the recipe's loss.
        known: the examples whose right label is known, bool (N,); None: all.
    """

    task: TaskSpec
    labels: np.ndarray
    probabilities: np.ndarray
    loss: LossName
    known: np.ndarray | None = field(default=None)

    @cached_property
    def predicted(self) -> np.ndarray:
        """The label that the model names for each example, int (N,)."""
        return self.probabilities.argmax(axis=1)

    @cached_property
    def confidence(self) -> np.ndarray:
        """The probability of that label where the row is normalised to sum to one, float64 (N,)."""
        return scores.normalise(self.probabilities).max(axis=1)

    @cached_property
    def is_known(self) -> np.ndarray:
        """The examples whose right label is known, bool (N,)."""
        return np.ones(len(self.labels), bool) if self.known is None else self.known

    @cached_property
    def right(self) -> np.ndarray:
        """The examples that the model answers rightly, bool (N,); where the right label is unknown, False."""
        return (self.predicted == self.labels) & self.is_known

    def judged(self) -> Answers:
        """Those of the answers whose right label is known."""
        if self.known is None or self.known.all():
            return self
        return replace(self, labels=self.labels[self.known], probabilities=self.probabilities[self.known], known=None)


def relate(answers: Mapping[str, Answers]) -> dict[str, Relation]:
    """The relation of each task that another one of these implies."""
    return relations.find_all({name: a.task for name, a in answers.items()})


def contradictions(answers: Mapping[str, Answers]) -> dict[str, np.ndarray]:
    """For each task that another one implies the examples on which the two contradict each other, bool (N,)."""
    return relations.contradictions(relate(answers), {name: a.predicted for name, a in answers.items()})


def check(name: str, answers: Answers) -> None:
    """Raise UserError where labels, outputs and names are not of one task, or the outputs are no probabilities."""
    shape, examples, names = answers.probabilities.shape, len(answers.labels), len(answers.task.names)
    if shape != (examples, names) or not examples:
        raise UserError(f"{name}: the model's answers have shape {shape} for {examples} images and {names} classes")
    if answers.labels.max() >= names:
        raise UserError(
            f"{name}: label {answers.labels.max()} is beyond its {names} classes: the labels of another task?"
        )
    low, high = answers.probabilities.min(), answers.probabilities.max()
    if not (low >= 0 and high <= 1 + ROUNDING):  # so that NaN is refused too
        raise UserError(
            f"{name}: the model's outputs are from {low:g} to {high:g} and must be probabilities, from 0 to 1;"
            " end its network in softmax or sigmoid"
        )
