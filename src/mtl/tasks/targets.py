"""Targets: the labels of a task, and those of several side by side, for a network with a head per task."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np

from mtl.config.recipes import LossName


class Targets(NamedTuple):
    """The labels of a task and which of them are known, bool in the shape of the labels. An unknown label is 0.

    Of `classes` uint8 or uint16 (N,), of `multilabel` uint8 (N, K), of `value` float64 (N,).
    """

    labels: np.ndarray
    known: np.ndarray

    @property
    def any_known(self) -> np.ndarray:
        """The examples of which something is known, bool (N,)."""
        return np.asarray(self.known.reshape(len(self.known), -1).any(axis=1))


@dataclass(frozen=True)
class Head:
    """One task's part of a network's output, and how it is trained.

    Attributes:
        outputs: their number.
        weight: of its loss in the sum.
        class_weights: of `classes`: of an image's loss by its label, (outputs,); None: all count the same.
        kind: of the task.
        loss: by name; None: the recipe's, and where that says nothing the kind's.
        gaps: the labels that the feed carries say which of them are known, and the others have no weight.
    """

    outputs: int
    weight: float = 1.0
    class_weights: tuple[float, ...] | None = None
    kind: str = "classes"
    loss: LossName | None = None
    gaps: bool = False


def parts(widths: Iterable[int]) -> list[slice]:
    """The columns of each of several arrays that stand side by side."""
    return [slice(start, end) for start, end in pairwise(accumulate(widths, initial=0))]


def columns(heads: Sequence[Head]) -> list[slice]:
    """The columns of each head in the network's output."""
    return parts(head.outputs for head in heads)
