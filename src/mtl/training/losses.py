"""Several tasks in one network: targets, loss and accuracy of heads whose probabilities stand side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
from keras import KerasTensor, ops

from mtl.tasks import targets


def summed(loss: keras.Loss, heads: Sequence[targets.Head]) -> keras.Loss:
    """The weighted sum of `loss` over the heads, or `loss` itself for one head of weight 1 without class weights.

    A class weight multiplies the loss of an image, on training and validation images alike; the mean stays one over
    the number of images.
    """
    if len(heads) == 1 and heads[0].weight == 1 and heads[0].class_weights is None:
        return loss
    return _Summed(loss, heads)


class _Summed(keras.Loss):
    def __init__(self, loss: keras.Loss, heads: Sequence[targets.Head]) -> None:
        super().__init__(name="summed")
        self.loss, self.heads = loss, heads

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        parts = zip(self.heads, targets.columns(self.heads), strict=True)
        return sum(self._of_head(head, y_true[:, part], y_pred[:, part]) for head, part in parts)

    def _of_head(self, head: targets.Head, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        losses = head.weight * self.loss.call(y_true, y_pred)
        if head.class_weights is None:
            return losses
        # The targets are one-hot here: the loss itself smooths them.
        return losses * ops.sum(y_true * ops.convert_to_tensor(head.class_weights, y_true.dtype), axis=-1)


def accuracy(heads: Sequence[targets.Head]) -> keras.Metric:
    """The metric `acc`: the accuracy, of several heads the mean of their accuracies."""
    if len(heads) == 1:
        return keras.metrics.CategoricalAccuracy(name="acc")
    return keras.metrics.MeanMetricWrapper(mean_categorical_accuracy(heads), name="acc")


def mean_categorical_accuracy(heads: Sequence[targets.Head]) -> Callable[[KerasTensor, KerasTensor], KerasTensor]:
    """A function of targets and probabilities, both (N, K): the fraction (N,) of the heads that are right per image."""

    def of_images(y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        parts = [
            keras.metrics.categorical_accuracy(y_true[:, part], y_pred[:, part]) for part in targets.columns(heads)
        ]
        return ops.mean(ops.stack(parts), axis=0)

    return of_images
