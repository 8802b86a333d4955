"""Indices of the images that are worth a look, the most telling first."""

from __future__ import annotations

import numpy as np

from mtl.evaluation.answers import Answers


def mistakes(task: Answers, most: int) -> np.ndarray:
    """The images whose wrong answer the model is surest of, int (≤ most,)."""
    return _surest(task.predicted != task.labels, task.confidence, most)


def contradictions(base: Answers, task: Answers, groups: np.ndarray, most: int) -> np.ndarray:
    """The images where the label that `base` names is in another group than the one `task` names, int (≤ most,).

    First those where the less sure of the two models is surest; `groups` is `implied(base, task)`.
    """
    return _surest(groups[base.predicted] != task.predicted, np.minimum(base.confidence, task.confidence), most)


def _surest(selected: np.ndarray, confidence: np.ndarray, most: int) -> np.ndarray:
    order = np.argsort(-confidence, kind="stable")
    return order[selected[order]][:most]
