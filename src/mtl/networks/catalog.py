"""Keras networks by name, from uint8 images to float32 outputs, with preprocessing inside the network."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from mtl.config.recipes import Recipe
from mtl.data.shards import ShardedImages
from mtl.errors import UserError, one_line
from mtl.networks import blocks
from mtl.tasks import kinds, own

Shape = tuple[int, int, int]


def article(shape: Shape, classes: int, dense: Sequence[int], head: str) -> keras.Model:
    """The published networks: three 3×3 convolutions without activation, then ReLU dense layers, on raw pixels.

    Args:
        shape: height, width and channels of the images.
        classes: number of outputs.
        dense: units of the dense layers before the output.
        head: activation of the output, `softmax`, `sigmoid` or, for numbers, `linear`.
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


def compact(
    shape: Shape,
    classes: int,
    widths: Sequence[int],
    heads: Sequence[int] | None = None,
    activation: str | Sequence[str] = "softmax",
    uncertainty: bool = False,
    identity: bool = False,
) -> keras.Model:
    """A small all-convolutional network for images of any size, after Keller Jordan's airbench (arXiv:2404.00498).

    A fixed layer that whitens 2×2 patches, then a block per width: conv, pool, BN, SiLU, conv, BN, SiLU. It differs
    from airbench in its widths and in SiLU for GELU, which takes a CPU twice as long.

    Args:
        shape: height, width and channels of the images.
        classes: number of outputs.
        widths: channels of each block.
        heads: outputs of each of several tasks that share all blocks (hard parameter sharing, Caruana 1997); they
            stand side by side in the output, whose size is the sum. None: one task.
        uncertainty: the losses of the heads are weighed by what the network learns (`blocks.TaskUncertainty`).
        activation: of the output, `softmax`, `sigmoid` or `linear`; for each head, or one for all.
        identity: the convolutions begin by passing their channels on (`blocks.start_at_identity`).

    Raises:
        ValueError: `heads` do not add up to `classes`.
    """
    sizes = [classes] if heads is None else list(heads)
    if sum(sizes) != classes:
        raise ValueError(f"heads of {sizes} outputs do not add up to {classes}")
    inputs = keras.Input(shape, dtype="uint8")
    features = blocks.trunk(inputs, widths)
    activations = [activation] * len(sizes) if isinstance(activation, str) else activation
    outputs = [blocks.head(features, size, last) for size, last in zip(sizes, activations, strict=True)]
    joined = outputs[0] if len(outputs) == 1 else layers.Concatenate(dtype="float32")(outputs)
    if uncertainty:
        joined = blocks.TaskUncertainty(len(sizes))(joined)
    model = keras.Model(inputs, joined, name="compact")
    if identity:
        blocks.start_at_identity(model)
    return model


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
    try:
        return getattr(own.import_from_here(module), function)
    except (ImportError, AttributeError) as error:
        raise UserError(f"network {name!r}: {error}; it must be module:function, importable from here") from error


def own_modules(*names: str) -> list[str]:
    """The modules of those of some networks and kinds that are a person's own, `module:name`; sorted."""
    return sorted({name.partition(":")[0] for name in names if ":" in name})


def import_own(module: str) -> None:
    """Import a person's own module, which registers the layers of a network; raises UserError where it fails."""
    try:
        own.import_from_here(module)
    except Exception as error:  # it is the person's code, which may raise anything
        raise UserError(
            f"cannot import {module!r}: {type(error).__name__}: {one_line(error)};"
            " name a module that is in the working directory or on PYTHONPATH"
        ) from error


def build(
    recipe: Recipe,
    shape: Shape,
    classes: int,
    images: np.ndarray | ShardedImages,
    of_kinds: Sequence[str] = ("classes",),
) -> keras.Model:
    """Build the network of `recipe`, untrained, from the global seed.

    Args:
        recipe: names the network and its options.
        shape: height, width and channels of the images.
        classes: number of outputs, of all heads.
        images: training images, uint8 (N, H, W, C), of which a network may look at the first.
        of_kinds: the kind of each head. A network that takes `activation` gets that of the kind; any other is a full
            model, and its last activation must fit.

    Raises:
        UserError: unknown network, options that it does not take, or images too small for it.
    """
    network, options = find(recipe.network), dict[str, Any](recipe.options)
    try:
        signature = inspect.signature(network)
        activations = [kinds.find(kind).ACTIVATIONS[0] for kind in of_kinds]
        if "activation" in signature.parameters and set(activations) != {"softmax"}:
            options.setdefault("activation", activations[0] if len(activations) == 1 else activations)
        signature.bind(shape, classes, **options)
        model = network(shape, classes, **options)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"network {recipe.network!r} with {recipe.options} on images {shape}: {one_line(error)}"
        ) from error
    output = getattr(model, "output_shape", type(model).__name__)
    if output != (None, classes):
        raise UserError(f"network {recipe.network!r} gives {output}; the task needs a model with (None, {classes})")
    last = getattr(getattr(model.layers[-1], "activation", None), "__name__", "")
    for kind in of_kinds if len(of_kinds) == 1 else ():
        fitting, other = kinds.find(kind).ACTIVATIONS, {"softmax", "sigmoid", "relu", "tanh"}
        if last in other - {*fitting}:
            raise UserError(
                f"network {recipe.network!r} ends in {last}; a task of the kind {kind} needs {' or '.join(fitting)}"
            )
    for layer in model.layers:
        if layer.name == blocks.WHITENING:
            layer.set_weights([blocks.whitening_kernel(np.asarray(images[: blocks.WHITENED]))])
    return model
