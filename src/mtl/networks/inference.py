"""A network in use: its predictions, its cost, and the copy of it that is saved."""

from __future__ import annotations

import math
from collections.abc import Iterator

import keras
import numpy as np
from keras import layers, ops

from mtl.data.shards import ShardedImages
from mtl.errors import UserError, one_line
from mtl.networks import blocks
from mtl.tasks import kinds
from mtl.tasks.spec import TaskSpec


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


def finish(network: keras.Model, task: TaskSpec, mirror: bool = False) -> keras.Model:
    """The model that is saved: a network, as `plain` returns it, with what makes answers of its outputs.

    Its layers and operations are those of Keras, so that it loads anywhere in safe mode.

    Args:
        network: trained.
        task: what the answers mean, with the temperature where it has one.
        mirror: the mean answer to an image and its mirror image, on the scale of the kind's link function.
    """
    kind = kinds.find(task.kind)
    model = kind.finish(network, task)
    if model.outputs[0].dtype != "float32":  # a network of a person's own that says nothing of its last layer
        model = keras.Model(model.inputs, [ops.cast(model.outputs[0], "float32")], name=model.name)
    if not mirror and task.temperature is None:
        return model
    images = keras.Input(network.input_shape[1:], dtype="uint8")
    views = [images, ops.flip(images, axis=2)] if mirror else [images]
    linked = [kind.link(task, keras.tree.flatten(model([view]))[0], ops) for view in views]
    mean = sum(linked[1:], linked[0]) / (len(views) * (task.temperature or 1.0))
    return keras.Model([images], [kind.inverse_link(task, mean, ops)], name=network.name)


def views(network: keras.Model, mirror: bool) -> keras.Model:
    """A network, as `plain` returns it, that is asked about an image and with `mirror` about its mirror image too.

    Its outputs are (N, 1, K), or (N, 2, K), of all its heads; `finish` is of a network with a single one.
    """
    images = keras.Input(network.input_shape[1:], dtype="uint8")
    seen = [images, ops.flip(images, axis=2)] if mirror else [images]
    outputs = ops.stack([keras.tree.flatten(network([view]))[0] for view in seen], axis=1)
    return keras.Model([images], [outputs], name=network.name)


def averaged(task: TaskSpec, outputs: np.ndarray) -> np.ndarray:
    """The answers (N, K) that `finish` makes of a head's outputs (N, 1, K) or (N, 2, K) in `views`, not calibrated."""
    kind = kinds.find(task.kind)
    seen = [kind.finished(task, outputs[:, view]) for view in range(outputs.shape[1])]
    if len(seen) == 1:
        return seen[0]
    return np.asarray(kind.inverse_link(task, np.mean([kind.link(task, view) for view in seen], axis=0)))


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
    policies = [layer.dtype_policy.name for layer in _layers(model)]
    return max(set(policies), key=policies.count)


def multiply_adds(model: keras.Model) -> int:
    """Multiply-adds of the forward pass of one image through the convolutions and dense layers of `model`.

    Those of a network that looks at the mirror image too count twice.
    """
    total = 0
    for layer in _layers(model):
        if isinstance(layer, layers.Conv2D):
            total += math.prod(layer.output.shape[1:3]) * math.prod(layer.kernel.shape)
        elif isinstance(layer, layers.Dense):
            total += math.prod(layer.kernel.shape)
    return total * (1 + any(type(operation).__name__ == "Flip" for operation in model.operations))


def _layers(model: keras.Model) -> Iterator[keras.Layer]:
    """The layers of a model, and those of the models in it."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        else:
            yield layer
