"""The models that are served: read in safe mode, checked against their tasks, compiled for fixed batch sizes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mtl import models, params, store
from mtl.errors import UserError, one_line
from mtl.serving.batching import Compute
from mtl.serving.pixels import Shape

if TYPE_CHECKING:
    import keras

SIZES = (1, 2, 4, 8, 16, 32, 64)  # batches are filled up to one of these, so that nothing is compiled while serving


@dataclass(frozen=True)
class Labels:
    """What a task tells apart.

    Attributes:
        classes: names in label order.
        of_class: for each class of the data set its name in this task; None where that is not known.
        frequencies: how often each label occurs in training, float64 (K,) summing to 1; None where not known.
    """

    classes: tuple[str, ...]
    of_class: Mapping[str, str] | None = None
    frequencies: np.ndarray | None = None


@dataclass(frozen=True)
class Loaded:
    """A model that is ready to be served. `compute`: uint8 (N, H, W, C) -> float32 (N, K), N up to SIZES[-1]."""

    task: str
    labels: Labels
    shape: Shape
    version: str
    compute: Compute


def read_labels(task: str, names: list[str] | None = None) -> Labels:
    """The labels of a served task.

    They are those of data/labels; a model that brings its own `names` is believed, and data/labels adds to them only
    where it has the same names.
    """
    local = (store.LABELS / task / "classes.json").exists()
    if names is not None and not (local and store.read_classes(task)["classes"] == names):
        return Labels(tuple(names))
    content = store.read_classes(task)
    counts = np.bincount(store.read_labels(task, "train"), minlength=len(content["classes"]))
    return Labels(tuple(content["classes"]), content["of_class"], counts / counts.sum())


def from_folder(folder: Path, names: Mapping[str, list[str]] | None = None, version: str = "1") -> dict[str, Loaded]:
    """Load and compile every `<task>.keras` in `folder`.

    Args:
        folder: where the models are.
        names: tasks with their class names; None: the tasks are the models that data/labels knows.
        version: what clients are told as the models' version.

    Raises:
        UserError: no model, one that does not load in safe mode, or one that does not fit its task.
    """
    if names is None:
        tasks = [path.stem for path in sorted(folder.glob("*.keras")) if (store.LABELS / path.stem).is_dir()]
    else:
        tasks = sorted(names)
    if not tasks:
        raise UserError(f"{folder}: no model of a task in {store.LABELS}; run `dvc repro`, or `dvc checkout`")
    _register_layers()
    networks, labels = {}, {}
    for task in tasks:
        if task in params.RESERVED or not re.fullmatch(r"[a-z][a-z0-9_]*", task):
            raise UserError(f"{folder}: a task cannot be served as {task!r}; name it like model1")
        labels[task] = read_labels(task, names and names[task])
        networks[task] = models.read(folder / f"{task}.keras")
        check(task, networks[task], labels[task])
    _check_same_shape({task: network.input_shape[1:] for task, network in networks.items()})
    return {task: load(task, network, labels[task], version) for task, network in networks.items()}


def _register_layers() -> None:
    """Import the networks of params.yaml: a person's own module may register its layers."""
    from mtl import networks

    if params.PATH.exists():
        for recipe in params.read().recipes.values():
            networks.find(recipe.network)


def check(task: str, network: keras.Model, labels: Labels) -> None:
    """Raises UserError unless `network` takes images of one size and has an output for each class of its task."""
    inputs, outputs = getattr(network, "input_shape", None), getattr(network, "output_shape", None)
    if not isinstance(inputs, tuple) or len(inputs) != 4 or None in inputs[1:] or inputs[3] != 3:
        raise UserError(f"the model of {task} takes {inputs}; images (N, height, width, 3) of one size are needed")
    if outputs != (None, len(labels.classes)):
        raise UserError(f"the model of {task} gives {outputs}; its {len(labels.classes)} classes need one output each")


def _check_same_shape(shapes: Mapping[str, Shape]) -> None:
    """Raises UserError unless all models take the same images, and those of the data set where there is one."""
    if (store.RAW / "dataset.json").exists():
        shapes = {"the data set": store.read_dataset().shape, **shapes}
    if len(set(shapes.values())) > 1:
        said = ", ".join(f"{name} {'×'.join(map(str, shape))}" for name, shape in shapes.items())
        raise UserError(f"the models take images of different shapes ({said}); serve models of one data set")


def load(task: str, network: keras.Model, labels: Labels, version: str) -> Loaded:
    """Check `network` against its task and compile it; raises UserError where the two do not fit."""
    check(task, network, labels)
    return Loaded(task, labels, network.input_shape[1:], version, compiled(network))


def compiled(network: keras.Model) -> Compute:
    """`network` as a function of arrays, traced for SIZES and run once for each of them."""
    import tensorflow as tf

    shape = network.input_shape[1:]
    forward = tf.function(lambda images: network(images, training=False))
    programs = {
        size: forward.get_concrete_function(tf.TensorSpec((size, *shape), network.input_dtype)) for size in SIZES
    }

    def compute(images: np.ndarray) -> np.ndarray:
        size = next(size for size in SIZES if size >= len(images))
        padded = np.zeros((size, *shape), np.uint8)
        padded[: len(images)] = images
        return programs[size](tf.cast(padded, network.input_dtype)).numpy()[: len(images)]

    try:
        for size in SIZES:
            answer = compute(np.zeros((size, *shape), np.uint8))
    except (tf.errors.OpError, ValueError, TypeError) as error:
        raise UserError(f"model {network.name!r} does not compute: {one_line(error)}") from error
    if not np.isfinite(answer).all():
        raise UserError(f"model {network.name!r} gives no numbers; train it again")
    return compute
