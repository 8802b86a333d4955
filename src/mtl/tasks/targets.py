"""Targets: the labels of a task, and those of several side by side, for a network with a head per task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np


class Targets(NamedTuple):
    """The labels of a task, uint8 or uint16 (N,), and which of them are known, bool (N,). An unknown label is 0."""

    labels: np.ndarray
    known: np.ndarray


@dataclass(frozen=True)
class Head:
    """One task's part of a network's output.

    Attributes:
        labels: the number of labels.
        weight: of its loss in the sum.
        class_weights: of an image's loss by its label, (labels,); None: all count the same.
    """

    labels: int
    weight: float = 1.0
    class_weights: tuple[float, ...] | None = None


def columns(heads: Sequence[Head]) -> list[slice]:
    """The columns of each head's probabilities in the network's output."""
    edges = accumulate((head.labels for head in heads), initial=0)
    return [slice(start, end) for start, end in pairwise(edges)]


def one_hot(labels: np.ndarray, heads: Sequence[Head]) -> np.ndarray:
    """Targets, float32 (N, sum of the heads' labels), from labels, uint8 (N, T), or (N,) for one head."""
    per_head = labels.reshape(len(labels), len(heads)).T
    targets = [np.zeros((len(labels), head.labels), np.float32) for head in heads]
    for target, y in zip(targets, per_head, strict=True):
        target[np.arange(len(y)), y] = 1
    return np.concatenate(targets, axis=1)
