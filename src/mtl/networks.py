"""Keras networks by name: uint8 images in, float32 probabilities out; preprocessing is inside the network."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from numpy.lib.stride_tricks import sliding_window_view

from mtl.errors import UserError, one_line
from mtl.params import Recipe

Shape = tuple[int, int, int]
WHITENING = "whitening"  # name of the layer whose kernel comes from the training images


def article(shape: Shape, classes: int, dense: Sequence[int], head: str) -> keras.Model:
    """The published networks: three 3×3 convolutions without activation, then ReLU dense layers, on raw pixels.

    Args:
        shape: height, width and channels of the images.
        classes: number of outputs.
        dense: units of the dense layers before the output.
        head: activation of the output, `softmax` or `sigmoid`.
    """
    inputs = keras.Input(shape, dtype="uint8")
    x = layers.Rescaling(1.0)(inputs)
    x = layers.Conv2D(32, 3)(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(64, 3)(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(128, 3)(x)
    x = layers.Flatten()(x)
    for units in dense:
        x = layers.Dense(units, activation="relu")(x)
    outputs = layers.Dense(classes, activation=head, dtype="float32")(x)
    return keras.Model(inputs, outputs, name="article")


def compact(shape: Shape, classes: int, widths: Sequence[int]) -> keras.Model:
    """A small all-convolutional network for images of any size, after Keller Jordan's airbench (arXiv:2404.00498).

    A fixed layer that whitens 2×2 patches, then a block per width: conv, pool, BN, SiLU, conv, BN, SiLU. It differs
    from airbench in its widths and in SiLU for GELU, which takes a CPU twice as long.

    Args:
        shape: height, width and channels of the images.
        classes: number of outputs.
        widths: channels of each block.
    """

    def normalise(x: keras.KerasTensor) -> keras.KerasTensor:
        return layers.Activation("silu")(FusedBatchNormalization(momentum=0.6, epsilon=1e-5, scale=False)(x))

    inputs = keras.Input(shape, dtype="uint8")
    x = layers.Rescaling(1 / 128, offset=-1.0)(inputs)
    x = layers.Conv2D(2 * 4 * shape[-1], 2, use_bias=False, trainable=False, name=WHITENING)(x)
    x = layers.Activation("silu")(x)
    for width in widths:
        x = layers.Conv2D(width, 3, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
        x = normalise(layers.MaxPooling2D(2)(x))
        x = normalise(layers.Conv2D(width, 3, padding="same", use_bias=False, kernel_initializer="he_normal")(x))
    x = layers.Dense(classes, use_bias=False)(layers.GlobalAveragePooling2D()(x))
    outputs = layers.Softmax(dtype="float32")(x)
    return keras.Model(inputs, outputs, name="compact")


class FusedBatchNormalization(layers.BatchNormalization):
    """Batch normalisation without scale, in training one bfloat16 kernel instead of a chain of float32 ones.

    It has the weights and the configuration of the Keras layer, which takes its place when the model is saved.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if not training:
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            tf.ones_like(self.moving_mean),
            tf.convert_to_tensor(self.beta),
            epsilon=self.epsilon,
            is_training=True,
        )
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + now * (1 - self.momentum))
        return outputs


def plain(model: keras.Model) -> keras.Model:
    """`model` in layers of Keras alone, which load anywhere in safe mode; without its optimizer.

    Raises UserError where it is not built of layers (a subclass of Model), which a model file could not hold.
    """

    def standard(layer: keras.Layer) -> keras.Layer:
        fused = isinstance(layer, FusedBatchNormalization)
        return (layers.BatchNormalization if fused else type(layer)).from_config(layer.get_config())

    try:
        uncompiled = keras.Model(model.inputs, model.outputs, name=model.name)
        copy = keras.models.clone_model(uncompiled, clone_function=standard)
        copy.set_weights(model.get_weights())
    except (AttributeError, TypeError, ValueError, NotImplementedError) as error:
        raise UserError(f"network {model.name!r}: not a model that can be saved: {one_line(error)}") from error
    return copy


def whitening_kernel(images: np.ndarray, size: int = 2, epsilon: float = 5e-4) -> np.ndarray:
    """A convolution kernel that makes the patches of `images` uncorrelated, with unit variance, and its negative.

    The eigenvectors of the patches' covariance, divided by the root of their eigenvalues (Page, How to train your
    ResNet, 2018). Pixels are taken as `compact` rescales them.

    Args:
        images: uint8 (N, H, W, C); the first 5,000 are used.

    Returns:
        float32 (size, size, C, 2·size²·C).
    """
    windows = sliding_window_view(images[:5000] / np.float32(128) - 1, (size, size), axis=(1, 2))
    patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, size * size * images.shape[-1])
    values, vectors = np.linalg.eigh(np.cov(patches, rowvar=False))
    kernel = (vectors / np.sqrt(values + epsilon)).reshape(size, size, images.shape[-1], -1)
    return np.concatenate([kernel, -kernel], axis=-1).astype(np.float32)


NETWORKS: dict[str, Callable[..., keras.Model]] = {"article": article, "compact": compact}


def find(name: str) -> Callable[..., keras.Model]:
    """The function behind a recipe's `network`: a name in NETWORKS, or a person's own `module:function`.

    The module is looked for in the working directory too. Raises UserError where there is no such function.
    """
    if name in NETWORKS:
        return NETWORKS[name]
    module, colon, function = name.partition(":")
    if not colon:
        raise UserError(f"network {name!r}: unknown; use one of {', '.join(NETWORKS)}, or your own as module:function")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(f"network {name!r}: {error}; it must be module:function, importable from here") from error


def build(recipe: Recipe, shape: Shape, classes: int, images: np.ndarray) -> keras.Model:
    """Build the network of `recipe`, untrained, from the global seed.

    Args:
        recipe: names the network and its options.
        shape: height, width and channels of the images.
        classes: number of labels of the task.
        images: training images, uint8 (N, H, W, C).

    Raises:
        UserError: unknown network, options that it does not take, or images too small for it.
    """
    network = find(recipe.network)
    try:
        inspect.signature(network).bind(shape, classes, **recipe.options)
        model = network(shape, classes, **recipe.options)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"network {recipe.network!r} with {recipe.options} on images {shape}: {one_line(error)}"
        ) from error
    given = getattr(model, "output_shape", type(model).__name__)
    if given != (None, classes):
        raise UserError(f"network {recipe.network!r} gives {given}; the task needs a model with (None, {classes})")
    for layer in model.layers:
        if layer.name == WHITENING:
            layer.set_weights([whitening_kernel(images)])
    return model


def predict(model: keras.Model, images: np.ndarray, batch_size: int = 500) -> np.ndarray:
    """Probabilities, float32 (N, K), of `images`, uint8 (N, H, W, C)."""
    return model.predict(images, batch_size=batch_size, verbose=0)
