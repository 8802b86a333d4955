"""Indices of the examples that are worth a look, the most telling first."""

from __future__ import annotations

import numpy as np

from mtl.tasks import kinds
from mtl.tasks.answers import Answers


def mistakes(answers: Answers, most: int) -> np.ndarray:
    """The examples with the worst answers, of equally bad ones first those the model is surest of: int (≤ most,)."""
    kind = kinds.find(answers.task.kind)
    utility = kind.utility(answers)
    order = np.lexsort((-kind.confidence(answers.outputs), utility))
    return order[utility[order] < 1][:most]


def contradictions(base: Answers, answers: Answers, contradicted: np.ndarray, most: int) -> np.ndarray:
    """The examples on which the two models contradict each other, `contradicted` (N,): int (≤ most,).

    First those where the less sure of the two models is surest.
    """
    sure = [kinds.find(a.task.kind).confidence(a.outputs) for a in (base, answers)]
    order = np.argsort(-np.minimum(*sure), kind="stable")
    return order[contradicted[order]][:most]
