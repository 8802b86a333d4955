"""Indices of the examples that are worth a look, the most telling first."""

from __future__ import annotations

import numpy as np

from mtl.evaluation.answers import Answers


def mistakes(answers: Answers, most: int) -> np.ndarray:
    """The examples whose wrong answer the model is surest of, int (≤ most,)."""
    return _surest(answers.is_known & ~answers.right, answers.confidence, most)


def contradictions(base: Answers, answers: Answers, contradicted: np.ndarray, most: int) -> np.ndarray:
    """The examples on which the two models contradict each other, `contradicted` (N,): int (≤ most,).

    First those where the less sure of the two models is surest.
    """
    return _surest(contradicted, np.minimum(base.confidence, answers.confidence), most)


def _surest(selected: np.ndarray, confidence: np.ndarray, most: int) -> np.ndarray:
    order = np.argsort(-confidence, kind="stable")
    return order[selected[order]][:most]
