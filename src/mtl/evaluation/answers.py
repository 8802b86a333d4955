"""The answers of a task's model to the images, and the answers that they imply for another task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from mtl.config.recipes import LossName
from mtl.errors import UserError
from mtl.tasks import scores

ROUNDING = 1e-5  # a float32 softmax may be that much above 1


@dataclass(frozen=True)
class Answers:
    """The answers of one task's model to the test images.

    Attributes:
        labels: the right labels, uint8 (N,).
        probabilities: float32 (N, K), each in [0, 1]; rows need not sum to one.
        classes: the K names in label order.
        of_class: for each class of the data set the name it has in this task.
        loss: name of the recipe's loss; empty where the answers are not judged.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    classes: tuple[str, ...]
    of_class: Mapping[str, str]
    loss: LossName | Literal[""]

    @cached_property
    def predicted(self) -> np.ndarray:
        """The label that the model names for each image, int (N,)."""
        return self.probabilities.argmax(axis=1)

    @cached_property
    def confidence(self) -> np.ndarray:
        """The probability of that label where the row is normalised to sum to one, float64 (N,)."""
        return scores.normalise(self.probabilities).max(axis=1)


def check(name: str, answers: Answers) -> None:
    """Raise UserError where labels, outputs and classes are not of one task, or the outputs are no probabilities."""
    shape, images, classes = answers.probabilities.shape, len(answers.labels), len(answers.classes)
    if shape != (images, classes) or not images:
        raise UserError(f"{name}: the model's answers have shape {shape} for {images} images and {classes} classes")
    if answers.labels.max() >= classes:
        raise UserError(
            f"{name}: label {answers.labels.max()} is beyond its {classes} classes: the labels of another task?"
        )
    low, high = answers.probabilities.min(), answers.probabilities.max()
    if not (low >= 0 and high <= 1 + ROUNDING):  # so that NaN is refused too
        raise UserError(
            f"{name}: the model's outputs are from {low:g} to {high:g} and must be probabilities, from 0 to 1;"
            " end its network in softmax or sigmoid"
        )


def implied(base: Answers, task: Answers) -> np.ndarray | None:
    """The label of `task` that each label of `base` implies, int (K_base,).

    None where some label of `base` says nothing certain about `task`, or where the two distinguish the same things.
    """
    pairs = {(base.of_class[c], task.of_class[c]) for c in base.of_class}
    if len(pairs) != len(base.classes) or len(base.classes) <= len(task.classes):
        return None
    label = dict(pairs)
    return np.array([task.classes.index(label[name]) for name in base.classes])


def finest_base(name: str, answers: Mapping[str, Answers]) -> str | None:
    """The task with the most labels among those that imply the task `name`; the first of several."""
    bases = [other for other in answers if implied(answers[other], answers[name]) is not None]
    return max(bases, key=lambda other: len(answers[other].classes), default=None)


def group_sums(probabilities: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Probabilities (N, K) summed over the columns of each group, (N, G). `groups` (K,) holds each column's group."""
    return probabilities @ np.eye(groups.max() + 1)[groups]
