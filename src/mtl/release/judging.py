"""Answers of joint models to the validation images, and the images that a champion was trained on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path

import numpy as np

from mtl import files
from mtl.config.params import Params
from mtl.data import store
from mtl.data.shards import ShardedImages
from mtl.errors import UserError
from mtl.networks import saving
from mtl.tasks.answers import Answers
from mtl.tasks.spec import TaskSpec
from mtl.tracking import artifacts, bundles, registry
from mtl.tracking.bundles import Bundle

# Artifact of the run of a registered joint model: the fingerprints of the images it was trained on.
TRAINED_ON = "trained_on.npy"


def fingerprints(images: np.ndarray | ShardedImages) -> np.ndarray:
    """The 64-bit BLAKE2b hash of each image: uint8 (N, H, W, 3) -> uint64 (N,)."""
    return np.array([int.from_bytes(blake2b(image.tobytes(), digest_size=8).digest()) for image in images], np.uint64)


def attach_fingerprints(run_id: str) -> None:
    """Log the fingerprints of the training images to the run of a joint model, for later comparisons with it."""
    images = store.read_images("train")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / TRAINED_ON
        files.write_array(path, np.unique(fingerprints(images)))
        artifacts.log_artifact(run_id, path)


def unseen_indices(images: np.ndarray | ShardedImages, version: registry.Version, folder: Path) -> np.ndarray | None:
    """The indices of the images that a registered joint model was not trained on; None where that is unknown."""
    trained_on = artifacts.download_artifact(version.run_id, TRAINED_ON, folder)
    if trained_on is None:
        return None
    return np.flatnonzero(~np.isin(fingerprints(images), files.read_array(trained_on)))


def validation_images() -> np.ndarray | ShardedImages:
    """The images held out of training, uint8 (N, H, W, 3). Raises UserError where there are none."""
    images = store.read_images("validation")
    if not len(images):
        raise UserError("data.validation is 0: no validation images to judge on; hold some out and `dvc repro`")
    return images


def validation_answers(
    bundle: Bundle, settings: Params, images: np.ndarray | ShardedImages, indices: np.ndarray | None = None
) -> dict[str, Answers]:
    """The answers of the models in `bundle` to the validation images `images`, or to those at `indices` alone.

    Tasks that params.yaml does not have, or has with another kind or other names, are left out. The labels, and the
    order of the outputs, are those of data/labels.

    Raises UserError where a model does not load in safe mode or takes images of another shape.
    """
    from mtl.networks import catalog, inference

    indices = np.arange(len(images)) if indices is None else indices
    answers = {}
    for task, order in outputs(bundle.tasks, settings).items():
        catalog.find(settings.recipe(task).network)  # the user's own module may register its layers
        model = saving.read(bundle.files[task])
        if model.input_shape[1:] != images.shape[1:]:
            raise UserError(f"{task} takes images of shape {model.input_shape[1:]}, these are {images.shape[1:]}")
        labels, known = store.read_targets(task, "validation")
        found = inference.predict(model, images[indices])[:, order]
        thresholds = bundle.tasks[task].thresholds
        decided = {} if thresholds is None else {"thresholds": tuple(thresholds[k] for k in order)}
        spec = store.read_task(task).model_copy(update=decided)
        answers[task] = Answers(spec, labels[indices], found, settings.recipe(task).loss, known[indices])
    return answers


def outputs(specs: Mapping[str, TaskSpec], settings: Params) -> dict[str, list[int]]:
    """The model's output for each name of data/labels, for the tasks with the same kind and names in both."""
    current = {task: store.read_task(task) for task in settings.tasks if task in specs}
    return {
        task: [specs[task].names.index(name) for name in spec.names]
        for task, spec in current.items()
        if spec.kind == specs[task].kind and sorted(spec.names) == sorted(specs[task].names)
    }


def champion_answers(
    version: registry.Version, settings: Params, images: np.ndarray | ShardedImages, report: Callable[[str], None]
) -> tuple[dict[str, Answers], np.ndarray]:
    """The champion's answers to the images that it was not trained on, and the indices of those.

    Tasks that params.yaml does not have in the same way are reported and not compared; so is all of a champion that
    an earlier version logged, whose answers are then none.

    Raises UserError where nothing can be compared.
    """
    advice = "promote.significance: null promotes without comparing"
    with tempfile.TemporaryDirectory() as folder:
        indices = unseen_indices(images, version, Path(folder))
        if indices is None:
            report(f"{version}: its training images are unknown; compared on all validation images")
            indices = np.arange(len(images))
        elif not len(indices):
            raise UserError(f"{version} was trained on every one of the validation images: not comparable; {advice}")
        try:
            bundle = bundles.fetch(f"models:/{version.name}/{version.number}", Path(folder))
        except bundles.UnknownTasksError:
            report(f"{version}: an earlier version logged it, what its answers mean is unknown; not compared")
            return {}, indices
        try:
            answers = validation_answers(bundle, settings, images, indices)
        except UserError as error:
            raise UserError(f"{version}: {error}; {advice}") from None
        others = sorted(set(bundle.tasks) - set(answers))
    if not answers:
        raise UserError(f"{version} has no task with the class names of data/labels: not comparable; {advice}")
    if others:
        report(f"{version}: not compared, not in params.yaml or with other class names: {', '.join(others)}")
    return answers, indices
