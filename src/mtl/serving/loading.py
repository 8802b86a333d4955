"""Loading of models: read in safe mode, checked against their tasks, compiled for fixed batch sizes."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mtl import files
from mtl.config import params
from mtl.data import paths, store
from mtl.errors import UserError, one_line
from mtl.networks import saving
from mtl.serving.batching import Compute
from mtl.serving.pixels import Shape
from mtl.tasks import kinds, relations, spec
from mtl.tasks.kinds import Kind
from mtl.tasks.relations import UNRELATED, Relations
from mtl.tasks.spec import TaskSpec

if TYPE_CHECKING:
    import keras

    from mtl.tracking.bundles import Bundle

log = logging.getLogger("uvicorn.error")

SIZES = (1, 2, 4, 8, 16, 32, 64)  # batches are padded to one of these, so that nothing is compiled while serving


@dataclass(frozen=True)
class Loaded:
    """A model that is ready to serve.

    Attributes:
        task: what its answers mean.
        shape: height, width and channels of its images.
        version: for clients.
        compute: uint8 (N, H, W, C) -> float32 (N, K), N up to SIZES[-1].
        related: the relations between the tasks of all models that are served with it.
    """

    task: TaskSpec
    shape: Shape
    version: str
    compute: Compute
    related: Relations = UNRELATED

    @property
    def kind(self) -> Kind:
        """The kind of its task."""
        return kinds.find(self.task.kind)


def from_folder(folder: Path, version: str = "1", served: Collection[str] = ()) -> dict[str, Loaded]:
    """Load and compile every `<task>.keras` in `folder` whose task is in data/labels, with the same kind and names.

    What its answers mean says the model itself: training decides a part of it, such as thresholds.

    Args:
        folder: the models' folder.
        version: the models' version for clients.
        served: tasks that are served now. Those that are still in the project must have a model: while a stage runs,
            its outputs are missing, because DVC has removed them.

    Raises:
        UserError: there is no model, or one does not load in safe mode, or one does not fit its task.
    """
    from mtl.networks import catalog

    settings = params.read() if params.PATH.exists() else None
    labelled = {path.name for path in paths.LABELS.glob("*") if path.is_dir()}
    tasks = {path.stem for path in folder.glob("*.keras")} & labelled
    tasks |= set(served) & (labelled | set(settings.tasks if settings else ()))
    if not tasks:
        raise UserError(f"{folder}: no model of a task in {paths.LABELS}; run `dvc repro`, or `dvc checkout`")
    for recipe in settings.recipes.values() if settings else ():
        catalog.find(recipe.network)  # the user's own module may register its layers
    for task in settings.tasks.values() if settings else ():
        kinds.find(task.kind)  # so may that of a kind
    if unserved := sorted(labelled - tasks):
        log.warning("not served, as %s has no model of them: %s", folder, ", ".join(unserved))
    models = {task: folder / f"{task}.keras" for task in sorted(tasks)}
    networks = {task: saving.read_for(store.read_task(task), None, path) for task, path in models.items()}
    specs = {task: spec.read_from_model(path) for task, path in models.items()}
    shape = store.read_dataset().shape if store.is_loaded() else None
    kept = relations.read(files.read_json(paths.RELATIONS)) if paths.RELATIONS.exists() else UNRELATED
    return compile_models(networks, specs, version, kept, shape)


def from_bundle(bundle: Bundle, networks: Mapping[str, keras.Model], version: str) -> dict[str, Loaded]:
    """Compile the `networks` of a bundle, which alone knows their tasks. Raises UserError as `from_folder`."""
    return compile_models(networks, bundle.tasks, version, bundle.relations)


def compile_models(
    networks: Mapping[str, keras.Model],
    specs: Mapping[str, TaskSpec],
    version: str,
    related: Relations = UNRELATED,
    shape: Shape | None = None,
) -> dict[str, Loaded]:
    """Check and compile the models of all tasks.

    A task whose base has no model here is answered by its own, whatever its option; the log says so.

    Raises UserError if one does not fit its task or compute, if its kind is unknown, or if they take images of
    different shapes, or of another shape than `shape`, that of the data set.
    """
    for task, network in networks.items():
        if task in params.RESERVED or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", task):
            raise UserError(f"a task cannot be served as {task!r}; name it like model1")
        kinds.find_imported(specs[task].kind, task)
        check_fits_task(network, specs[task])
    for task, name in related.answer.items():
        base = related.derived.get(task)
        if task in specs and base not in specs:
            log.warning("%s: answered by its own model, as the %s answer needs that of %s", task, name, base)
    related = related.among(specs)
    shapes = {} if shape is None else {"the data set": shape}
    _check_same_shape(shapes | {task: network.input_shape[1:] for task, network in networks.items()})
    return {
        task: Loaded(specs[task], network.input_shape[1:], version, compile_network(network), related)
        for task, network in networks.items()
    }


def check_fits_task(network: keras.Model, task: TaskSpec) -> None:
    """Raise UserError unless `network` takes images of one size and has an output for each name of its task."""
    inputs, outputs = getattr(network, "input_shape", None), getattr(network, "output_shape", None)
    if not isinstance(inputs, tuple) or len(inputs) != 4 or None in inputs[1:] or inputs[3] != 3:
        raise UserError(f"the model of {task.name} takes {inputs}; images (N, height, width, 3) of one size are needed")
    if outputs != (None, len(task.names)):
        raise UserError(f"the model of {task.name} gives {outputs}; its {len(task.names)} names need one output each")


def _check_same_shape(shapes: Mapping[str, Shape]) -> None:
    """Raise UserError unless all shapes are the same; the keys name their owners."""
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {'×'.join(map(str, shape))}" for name, shape in shapes.items())
        raise UserError(f"the models take images of different shapes ({listed}); serve models of one data set")


def compile_network(network: keras.Model) -> Compute:
    """Compile `network` to a function of arrays, traced for SIZES, and run it once for each of them.

    Raises UserError if that fails, or if an output is NaN or infinite.
    """
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
            outputs = compute(np.zeros((size, *shape), np.uint8))
    except (tf.errors.OpError, ValueError, TypeError) as error:
        raise UserError(f"model {network.name!r} does not compute: {one_line(error)}") from error
    if not np.isfinite(outputs).all():
        raise UserError(f"model {network.name!r} has outputs that are NaN or infinite; train it again")
    return compute
