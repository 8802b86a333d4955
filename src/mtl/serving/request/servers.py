"""`mtl request`: ask running servers about one image, and compare what they say with the label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from mtl.config import params
from mtl.data import paths, store
from mtl.errors import UserError
from mtl.serving.request.client import JOINT, Server

TOKEN = "MTL_SERVE_TOKEN"  # what `mtl serve` reads it from
HEADER = ("task", "expected", "predicted", "probability", "status", "ms")


def parse(where: Sequence[str], tasks: Sequence[str], token: str | None = None) -> list[Server]:
    """`<task>=<url>`, `joint=<url>` or a gateway's `<url>` -> the servers to ask, in that order.

    Only a gateway is told `token`, which an `mlflow models serve` does not ask for.
    Raises UserError for a task that is not among `tasks`, and for what is no address.
    """
    servers = []
    for text in where:
        name, equals, url = text.partition("=")
        if not equals or "/" in name:
            servers += [Server(task, _address(text, f"{task}/invocations"), token) for task in tasks]
        elif name in (*tasks, JOINT):
            servers.append(Server(name, _address(url, "invocations")))
        else:
            raise UserError(f"{text}: there is no task {name!r} in {params.PATH}; known: {', '.join((*tasks, JOINT))}")
    return servers


def _address(url: str, path: str) -> str:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not parts.query
    except ValueError:
        valid = False
    if not valid:
        raise UserError(f"{url!r}: not the address of a server; give one like http://127.0.0.1:8001")
    return f"{url.rstrip('/')}/{path}"


def read_test_image(index: int) -> np.ndarray:
    """Test image `index` of data/raw, uint8 (H, W, 3). Raises UserError where there are not so many."""
    images = store.read_images("test")
    if index >= len(images):
        raise UserError(f"--index {index}: {paths.RAW} has {len(images)} test images, 0 to {len(images) - 1}")
    return images[index]


def read_image(path: Path) -> np.ndarray:
    """Decode an image file and resize it to the shape of the data set's images, uint8 (H, W, 3)."""
    from mtl.sources import decoding

    with decoding.no_bombs():
        pixels, _ = decoding.decode(path.read_bytes(), str(path))
    return decoding.fitted(pixels, store.read_dataset().shape)
