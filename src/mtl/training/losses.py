"""Several tasks in one network: loss and accuracy of heads whose outputs stand side by side."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import KerasTensor, ops

from mtl.config.recipes import Recipe
from mtl.networks import blocks
from mtl.tasks import heads as of_heads
from mtl.tasks import kinds, targets
from mtl.tasks.kinds import PerExample


def summed(recipe: Recipe, heads: Sequence[targets.Head], model: keras.Model | None = None) -> keras.Loss:
    """The weighted sum of the heads' losses; of one head of weight 1 its own.

    A class weight multiplies the loss of an image, on training and validation images alike; the mean stays one over
    the number of images. Where the `model` has a layer TaskUncertainty, each loss L is exp(-s) L + s / 2, and of a
    value exp(-s) L / 2 + s / 2, with s = log σ² learned for each head.
    """
    losses = [of_heads.loss(recipe, head) for head in heads]
    if len(heads) == 1 and heads[0].weight == 1:
        return losses[0]
    learned = [layer for layer in model.layers if isinstance(layer, blocks.TaskUncertainty)] if model else []
    return _Summed(losses, heads, learned[0] if learned else None)


class _Summed(keras.Loss):
    def __init__(
        self, losses: Sequence[keras.Loss], heads: Sequence[targets.Head], learned: blocks.TaskUncertainty | None
    ) -> None:
        super().__init__(name="summed")
        self.losses, self.heads, self.learned = losses, heads, learned
        self.parts = list(zip(of_heads.target_columns(heads), targets.columns(heads), strict=True))

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        each = zip(self.heads, self.losses, self.parts, strict=True)
        parts = [head.weight * loss.call(y_true[:, t], y_pred[:, p]) for head, loss, (t, p) in each]
        if self.learned is None:
            return sum(parts)
        logs = self.learned.log_variances
        halves = [0.5 if head.kind == "value" else 1.0 for head in self.heads]
        weighed = enumerate(zip(halves, parts, strict=True))
        return sum(half * ops.exp(-logs[k]) * part + logs[k] / 2 for k, (half, part) in weighed)


def accuracy(heads: Sequence[targets.Head]) -> list[keras.Metric]:
    """The metric `acc`: the mean accuracy of the heads that have one; none where no head has."""
    of_examples = mean_accuracy(heads)
    if of_examples is None:
        return []
    if len(heads) == 1 and heads[0].kind == "classes":
        return [keras.metrics.CategoricalAccuracy(name="acc")]
    return [keras.metrics.MeanMetricWrapper(of_examples, name="acc")]


def mean_accuracy(heads: Sequence[targets.Head]) -> PerExample | None:
    """A function of targets and outputs, both (N, ·): the mean (N,) of the accuracies of each example.

    Of several heads, those whose labels have gaps are left out: an example that one of them does not know has no
    accuracy there. None where no head has one.
    """
    parts = zip(heads, of_heads.target_columns(heads), targets.columns(heads), strict=True)
    measured = [
        (measure, t, p)
        for head, t, p in parts
        if (measure := kinds.find(head.kind).accuracy(head)) is not None and not (head.gaps and len(heads) > 1)
    ]

    def of_examples(y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        return ops.mean(ops.stack([measure(y_true[:, t], y_pred[:, p]) for measure, t, p in measured]), axis=0)

    return of_examples if measured else None
