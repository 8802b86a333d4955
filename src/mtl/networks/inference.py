"""A network in use: its predictions, its cost, and the copy of it that is saved."""

from __future__ import annotations

import math

import keras
import numpy as np
from keras import layers

from mtl.data.shards import ShardedImages
from mtl.errors import UserError, one_line
from mtl.networks import blocks


def plain(model: keras.Model) -> keras.Model:
    """A copy of `model` without optimizer, in layers of Keras alone, which load anywhere in safe mode.

    Raises UserError where it is not built of layers (a subclass of Model), which a model file could not hold.
    """

    def standard(layer: keras.Layer) -> keras.Layer:
        fused = isinstance(layer, blocks.FusedBatchNormalization)
        return (layers.BatchNormalization if fused else type(layer)).from_config(layer.get_config())

    try:
        uncompiled = keras.Model(model.inputs, model.outputs, name=model.name)
        copy = keras.models.clone_model(uncompiled, clone_function=standard)
        copy.set_weights(model.get_weights())
    except (AttributeError, TypeError, ValueError, NotImplementedError) as error:
        raise UserError(f"network {model.name!r}: not a model that can be saved: {one_line(error)}") from error
    return copy


def predict(model: keras.Model, images: np.ndarray | ShardedImages, batch_size: int = 500) -> np.ndarray:
    """Outputs, float32 (N, K), of `images`, uint8 (N, H, W, C); those in shards are read batch by batch."""
    if not len(images):
        return np.empty((0, *model.output_shape[1:]), np.float32)
    if not isinstance(images, np.ndarray):
        batches = [model.predict_on_batch(batch) for batch in images.batches(batch_size)]
        return np.concatenate(batches)
    return model.predict(images, batch_size=batch_size, verbose=0)


def precision(model: keras.Model) -> str:
    """The precision that most layers of a model compute in, as a recipe names it."""
    policies = [layer.dtype_policy.name for layer in model.layers]
    return max(set(policies), key=policies.count)


def multiply_adds(model: keras.Model) -> int:
    """Multiply-adds of the forward pass of one image through the convolutions and dense layers of `model`."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            total += math.prod(layer.output.shape[1:3]) * math.prod(layer.kernel.shape)
        elif isinstance(layer, layers.Dense):
            total += math.prod(layer.kernel.shape)
    return total
