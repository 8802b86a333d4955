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
    """One task's part of a network's output: its number of labels and the weight of its loss in the sum."""

    labels: int
    weight: float = 1.0


def columns(heads: Sequence[Head]) -> list[slice]:
    """The columns of each head's probabilities in the network's output."""
    edges = accumulate((head.labels for head in heads), initial=0)
    return [slice(start, end) for start, end in pairwise(edges)]


def one_hot(labels: np.ndarray, heads: Sequence[Head]) -> np.ndarray:
    """Targets, float32 (N, sum of the heads' labels), from labels, uint8 (N, T), or (N,) for one head."""
    per_head = labels.reshape(len(labels), len(heads)).T
    eyes = [np.eye(head.labels, dtype=np.float32) for head in heads]
    return np.concatenate([eye[y] for eye, y in zip(eyes, per_head, strict=True)], axis=1)
