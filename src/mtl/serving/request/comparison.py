"""One image sent to several servers, and their answers beside the label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mtl import text
from mtl.config import params
from mtl.data import paths, store
from mtl.errors import UserError
from mtl.serving.request import client, servers
from mtl.tasks import kinds, spec
from mtl.tasks.spec import TaskSpec

HEADER = ("task", "expected", "predicted", "probability", "status", "ms")


def compare(
    addresses: Sequence[str], source: int | Path, token: str | None, retries: int, timeout: float
) -> tuple[str, list[str]]:
    """Ask all servers about one image.

    Args:
        addresses: the servers, as `servers.parse` takes them.
        source: index of a test image, or an image file.
        token: bearer token for gateways.
        retries: tries after the first.
        timeout: seconds for each try.

    Returns:
        A table with the columns of HEADER, and one line for each error.

    Raises:
        UserError: an invalid address, or no such image.
    """
    tasks = list(params.read().tasks)
    parsed = servers.parse(addresses, tasks, token)
    specs = {task: _read_task(task) for task in tasks}
    image = read_image(source) if isinstance(source, Path) else read_test_image(source)
    expected = {}
    if isinstance(source, int):
        expected = {task: label for task in tasks if (label := _expected(specs[task], source))}
    rows, errors = [], []
    with client.open_session(retries, timeout) as session:
        for server in parsed:
            answer = client.ask(session, server, image, timeout, specs)
            status = ("-" if answer.status is None else str(answer.status), f"{1000 * answer.seconds:.0f}")
            for task, (name, probability) in answer.predicted.items():
                sure = "-" if probability is None else f"{probability:.4f}"
                rows.append((task, expected.get(task, "-"), name, sure, *status))
            if answer.error:
                rows.append((server.task, expected.get(server.task, "-"), "-", "-", *status))
                errors.append(f"error: {server}: {answer.error}")
    return text.aligned(HEADER, rows, HEADER[3:]), errors


def _read_task(task: str) -> TaskSpec:
    """The task of data/labels, or that of its model here where this answers the same: it knows thresholds too."""
    labelled, model = store.read_task(task), paths.model_path(task)
    try:
        own = spec.read_from_model(model)
    except UserError:  # there is no model, or one of another version: the servers have theirs
        return labelled
    return labelled if labelled.differs(own) else own


def _expected(task: TaskSpec, index: int) -> str:
    """The right answer for a test image; empty where nothing of it is known."""
    targets = store.read_targets(task.name, "test")
    if not targets.any_known[index]:
        return ""
    return client.shown(task, kinds.find(task.kind).ideal(task, targets.labels[index : index + 1])[0]).text


def read_test_image(index: int) -> np.ndarray:
    """Read test image `index` of data/raw, uint8 (H, W, 3). Raises UserError if there are not so many."""
    images = store.read_images("test")
    if index >= len(images):
        raise UserError(f"--index {index}: {paths.RAW} has {len(images)} test images, 0 to {len(images) - 1}")
    return np.asarray(images[index])


def read_image(path: Path) -> np.ndarray:
    """Decode an image file and resize it to the shape of the data set's images, uint8 (H, W, 3)."""
    from mtl.sources import decoding

    with decoding.no_bombs():
        pixels, _ = decoding.decode(path.read_bytes(), str(path))
    return decoding.fitted(pixels, store.read_dataset().shape)
