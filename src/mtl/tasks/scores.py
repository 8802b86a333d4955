"""Scores of probabilities: loss and accuracy of every task and split, and those that rare classes ask for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtl.config.recipes import LossName

OF_TWO_CLASSES = ("auc", "average_precision")  # scores that tasks of more classes do not have
EPSILON = 1e-7  # keras.config.epsilon(): probabilities are clipped to [EPSILON, 1 - EPSILON] before the logarithm


TINY = 1e-30  # probabilities are clipped to it where their logarithm is scaled or added up


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of rows of `probabilities` (N, K) whose largest entry is at `labels` (N,)."""
    return float(np.mean(probabilities.argmax(axis=1) == labels))


def normalise(probabilities: np.ndarray) -> np.ndarray:
    """Rows of `probabilities` (N, K) scaled to sum to one, float64. A row of zeros becomes 1 / K each."""
    positive = probabilities.astype(np.float64).clip(TINY)
    return positive / positive.sum(axis=1, keepdims=True)


def log_losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Negative log-likelihoods in nats (N,) of `labels` (N,) under rows of (N, K), normalised to sum to one."""
    p = normalise(probabilities)[np.arange(len(labels)), labels]
    return -np.log(p.clip(EPSILON, 1 - EPSILON))


def nll(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The mean of `log_losses`."""
    return float(log_losses(probabilities, labels).mean())


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


def of_classes(probabilities: np.ndarray, labels: np.ndarray, frequencies: Sequence[float]) -> dict[str, float | None]:
    """Scores in which rare classes count, all better the larger they are. Those of scikit-learn, on normalised rows.

    Args:
        probabilities: float32 (N, K), N at least 1.
        labels: the right labels, (N,).
        frequencies: the share of each label among the training labels, (K,).

    Returns:
        `balanced_acc`: the mean over the classes among `labels` of the accuracy on their images. `macro_f1`: the mean
        F1 over the classes that are among the labels or the answers. `skill`: 1 - nll / nll of always answering with
        `frequencies`: 0 knows nothing, 1 is perfect. Only of two classes, where the second name (label 1) is the
        positive one: `auc`, the area under the ROC curve, and `average_precision`; both None where `labels` has one
        class alone.
    """
    from sklearn.metrics import average_precision_score, f1_score, recall_score, roc_auc_score

    predicted = probabilities.argmax(axis=1)
    of_constant = -np.log(np.asarray(frequencies)[labels].clip(EPSILON, 1 - EPSILON)).mean()
    found: dict[str, float | None] = {
        "balanced_acc": float(recall_score(labels, predicted, labels=np.unique(labels), average="macro")),
        "macro_f1": float(f1_score(labels, predicted, average="macro")),
        "skill": float(1 - nll(probabilities, labels) / of_constant),
    }
    if probabilities.shape[1] == 2:
        positive, one_class = normalise(probabilities)[:, 1], len(np.unique(labels)) == 1
        found["auc"] = None if one_class else float(roc_auc_score(labels, positive))
        found["average_precision"] = None if one_class else float(average_precision_score(labels, positive))
    return found
