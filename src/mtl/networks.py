"""Keras networks by name: uint8 images in, float32 probabilities out; preprocessing is inside the network."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
from keras import layers

from mtl.errors import UserError
from mtl.params import Recipe

Shape = tuple[int, int, int]


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
    """A small all-convolutional network for images of any size: blocks of conv-pool-BN-ReLU-conv-BN-ReLU.

    Args:
        shape: height, width and channels of the images.
        classes: number of outputs.
        widths: channels of each block.
    """
    inputs = keras.Input(shape, dtype="uint8")
    x = layers.Rescaling(1 / 64, offset=-2.0)(inputs)
    x = layers.Conv2D(24, 2)(x)
    for width in widths:
        for pool in (True, False):
            x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
            if pool:
                x = layers.MaxPooling2D(2)(x)
            x = layers.BatchNormalization()(x)
            x = layers.Activation("relu")(x)
    x = layers.GlobalMaxPooling2D()(x)
    outputs = layers.Dense(classes, activation="softmax", dtype="float32")(x)
    return keras.Model(inputs, outputs, name="compact")


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
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"network {recipe.network!r} with {recipe.options} on images {shape}: {reason}") from error
    if model.output_shape != (None, classes):
        raise UserError(f"network {recipe.network!r} gives {model.output_shape}; the task needs (None, {classes})")
    return model


def predict(model: keras.Model, images: np.ndarray, batch_size: int = 500) -> np.ndarray:
    """Probabilities, float32 (N, K), of `images`, uint8 (N, H, W, C)."""
    return model.predict(images, batch_size=batch_size, verbose=0)
