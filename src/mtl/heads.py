"""Several tasks in one network: targets, loss and accuracy of heads whose probabilities stand side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import keras
import numpy as np
from keras import KerasTensor, ops


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


def summed(loss: keras.Loss, heads: Sequence[Head]) -> keras.Loss:
    """The weighted sum of `loss` over the heads; for one head of weight 1 `loss` itself."""
    if len(heads) == 1 and heads[0].weight == 1:
        return loss
    return _Summed(loss, heads)


class _Summed(keras.Loss):
    def __init__(self, loss: keras.Loss, heads: Sequence[Head]) -> None:
        super().__init__(name="summed")
        self.loss, self.heads = loss, heads

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        parts = zip(self.heads, columns(self.heads), strict=True)
        return sum(head.weight * self.loss.call(y_true[:, part], y_pred[:, part]) for head, part in parts)


def accuracy(heads: Sequence[Head]) -> keras.Metric:
    """The metric `acc`: the accuracy, of several heads the mean of their accuracies."""
    if len(heads) == 1:
        return keras.metrics.CategoricalAccuracy(name="acc")
    return keras.metrics.MeanMetricWrapper(right(heads), name="acc")


def right(heads: Sequence[Head]) -> Callable[[KerasTensor, KerasTensor], KerasTensor]:
    """What `accuracy` is the mean of: the part (N,) that probabilities (N, K) got right of each image's targets."""

    def of_images(y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        parts = [keras.metrics.categorical_accuracy(y_true[:, part], y_pred[:, part]) for part in columns(heads)]
        return ops.mean(ops.stack(parts), axis=0)

    return of_images
