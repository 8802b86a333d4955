"""The models that are served: read in safe mode, checked against their tasks, compiled for fixed batch sizes."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mtl.config import params
from mtl.data import paths, store
from mtl.errors import UserError, one_line
from mtl.networks import saving
from mtl.serving.batching import Compute
from mtl.serving.pixels import Shape

if TYPE_CHECKING:
    import keras

    from mtl.tracking.bundles import Bundle

log = logging.getLogger("uvicorn.error")

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


def from_folder(folder: Path, version: str = "1", served: Collection[str] = ()) -> dict[str, Loaded]:
    """Load and compile every `<task>.keras` in `folder` whose task data/labels knows, with the same names.

    Args:
        folder: where the models are.
        version: what clients are told as the models' version.
        served: tasks that are served now. Those that the project still has must have their model: while a stage runs,
            DVC has removed what it will write.

    Raises:
        UserError: no model, one that does not load in safe mode, or one that does not fit its task.
    """
    from mtl.networks import catalog

    settings = params.read() if params.PATH.exists() else None
    labelled = {path.name for path in paths.LABELS.glob("*") if path.is_dir()}
    tasks = {path.stem for path in folder.glob("*.keras")} & labelled
    tasks |= set(served) & (labelled | set(settings.tasks if settings else ()))
    if not tasks:
        raise UserError(f"{folder}: no model of a task in {paths.LABELS}; run `dvc repro`, or `dvc checkout`")
    for recipe in settings.recipes.values() if settings else ():
        catalog.find(recipe.network)  # a person's own module may register its layers
    if without := sorted(labelled - tasks):
        log.warning("without a model in %s, not served: %s", folder, ", ".join(without))
    read, labels = {}, {}
    for task in sorted(tasks):
        about = store.describe_task(task)
        labels[task] = Labels(tuple(about["classes"]), about["of_class"], np.array(about["frequencies"]))
        read[task] = saving.read_for(about["classes"], None, folder / f"{task}.keras")
    return _load(read, labels, version, store.read_dataset().shape if (paths.RAW / "dataset.json").exists() else None)


def from_bundle(bundle: Bundle, networks: Mapping[str, keras.Model], version: str) -> dict[str, Loaded]:
    """Compile the `networks` of a bundle, which alone says what they tell apart. Raises UserError as `from_folder`."""
    of_class, frequencies = bundle.of_class or {}, bundle.frequencies or {}
    labels = {
        task: Labels(tuple(names), of_class.get(task), np.array(frequencies[task]) if task in frequencies else None)
        for task, names in bundle.classes.items()
    }
    return _load(networks, labels, version, None)


def _load(
    networks: Mapping[str, keras.Model], labels: Mapping[str, Labels], version: str, shape: Shape | None
) -> dict[str, Loaded]:
    """Check and compile the models, which take images of one shape, that of the data set where it is known."""
    for task, network in networks.items():
        if task in params.RESERVED or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", task):
            raise UserError(f"a task cannot be served as {task!r}; name it like model1")
        check(task, network, labels[task])
    shapes = {} if shape is None else {"the data set": shape}
    _check_same_shape(shapes | {task: network.input_shape[1:] for task, network in networks.items()})
    return {
        task: Loaded(task, labels[task], network.input_shape[1:], version, compiled(network))
        for task, network in networks.items()
    }


def check(task: str, network: keras.Model, labels: Labels) -> None:
    """Raises UserError unless `network` takes images of one size and has an output for each class of its task."""
    inputs, outputs = getattr(network, "input_shape", None), getattr(network, "output_shape", None)
    if not isinstance(inputs, tuple) or len(inputs) != 4 or None in inputs[1:] or inputs[3] != 3:
        raise UserError(f"the model of {task} takes {inputs}; images (N, height, width, 3) of one size are needed")
    if outputs != (None, len(labels.classes)):
        raise UserError(f"the model of {task} gives {outputs}; its {len(labels.classes)} classes need one output each")


def _check_same_shape(shapes: Mapping[str, Shape]) -> None:
    """Raises UserError unless all of these, by name, are the same."""
    if len(set(shapes.values())) > 1:
        said = ", ".join(f"{name} {'×'.join(map(str, shape))}" for name, shape in shapes.items())
        raise UserError(f"the models take images of different shapes ({said}); serve models of one data set")


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
