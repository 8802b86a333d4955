"""The optimizers and learning rate schedules that a recipe may name."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from mtl.config.recipes import OneCycle, Recipe

ADAM_RATIO = 0.1  # learning rate of Adam, for what Muon does not train, over Muon's


class OneCycleSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear rise from 0 to `peak` over the fraction `warmup` of `steps`, then linear fall to 0."""

    def __init__(self, peak: float, warmup: float, steps: int) -> None:
        self.peak, self.warmup, self.steps = peak, warmup, steps

    def get_config(self) -> dict[str, Any]:
        return {"peak": self.peak, "warmup": self.warmup, "steps": self.steps}

    def __call__(self, step: Any) -> Any:
        done = (ops.cast(step, "float32") + 1.0) / (self.steps + 1.0)
        rise = done / max(self.warmup, 1e-9)
        return self.peak * ops.minimum(rise, (1.0 - done) / (1.0 - self.warmup))


class ConvMuon(keras.optimizers.Muon):
    """Muon (Jordan et al., 2024) for convolutions: kernels are matrices (k·k·in, out), made orthogonal in bfloat16.

    Keras' own leaves convolutions to Adam. Here Adam has the biases, the normalisations and the last layer.
    """

    def _should_use_adamw(self, variable: keras.Variable) -> bool:
        return len(variable.shape) != 4

    def lr_adjust(self, x: Any) -> Any:
        return x

    def zeropower_via_newtonschulz5(self, x: Any, steps: int) -> Any:
        rows, columns = math.prod(x.shape[:-1]), x.shape[-1]
        matrix = ops.cast(ops.reshape(x, (rows, columns)), "bfloat16")
        orthogonal = ops.cast(super().zeropower_via_newtonschulz5(matrix, steps), x.dtype)
        return ops.reshape(orthogonal, x.shape) * max(1, columns / rows) ** 0.5


def build(recipe: Recipe, steps: int) -> keras.optimizers.Optimizer:
    """The optimizer of `recipe` for a training of `steps` steps. Biases and normalisations are not decayed."""
    settings = recipe.optimizer
    rate: Any = settings.learning_rate
    if isinstance(recipe.schedule, OneCycle):
        rate = OneCycleSchedule(settings.learning_rate, recipe.schedule.warmup, steps)
    decay = settings.weight_decay or None
    if settings.name == "muon":
        return ConvMuon(
            rate, momentum=settings.momentum, weight_decay=decay, adam_weight_decay=None, adam_lr_ratio=ADAM_RATIO
        )
    if settings.name == "sgd":
        optimizer = keras.optimizers.SGD(rate, settings.momentum, nesterov=settings.momentum > 0, weight_decay=decay)
    else:
        optimizer = keras.optimizers.Adam(rate, weight_decay=decay)
    if decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer
