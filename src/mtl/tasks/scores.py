"""Loss and accuracy of probabilities: the two figures of every task and split."""

from __future__ import annotations

import numpy as np

from mtl.config.recipes import LossName

EPSILON = 1e-7  # keras.config.epsilon(): probabilities are clipped to [EPSILON, 1 - EPSILON] before the logarithm


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of rows of `probabilities` (N, K) whose largest entry is at `labels` (N,)."""
    return float(np.mean(probabilities.argmax(axis=1) == labels))


def of_split(split: str, probabilities: np.ndarray, labels: np.ndarray, name: LossName) -> dict[str, float]:
    """`<split>_loss` and `<split>_acc`: `loss` by its `name`, and `accuracy`."""
    return {f"{split}_loss": loss(probabilities, labels, name), f"{split}_acc": accuracy(probabilities, labels)}


def normalise(probabilities: np.ndarray) -> np.ndarray:
    """Rows of `probabilities` (N, K) scaled to sum to one, float64. A row of zeros becomes 1 / K each."""
    positive = probabilities.astype(np.float64).clip(1e-30)
    return positive / positive.sum(axis=1, keepdims=True)


def nll(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log-likelihood in nats of `labels` (N,) under rows of (N, K), normalised to sum to one."""
    p = normalise(probabilities)[np.arange(len(labels)), labels]
    return float(-np.log(p.clip(EPSILON, 1 - EPSILON)).mean())


def loss(probabilities: np.ndarray, labels: np.ndarray, name: LossName) -> float:
    """The Keras loss `name` on one-hot labels, without label smoothing, in nats.

    Categorical: the mean over images of -log p(label). Binary: each of the K outputs is a yes-or-no question, and the
    loss is the mean over images and outputs of -log p(its right answer).
    """
    if name == "categorical_crossentropy":
        return nll(probabilities, labels)
    p = probabilities.astype(np.float64).clip(EPSILON, 1 - EPSILON)
    right = np.eye(p.shape[1], dtype=bool)[labels]
    return float(-np.log(np.where(right, p, 1 - p)).mean())
