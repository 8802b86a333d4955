"""A few test images for the page, if data/raw is there."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from mtl.data import paths, store
from mtl.data.shards import ShardedImages
from mtl.errors import UserError
from mtl.serving.pixels import Shape
from mtl.serving.refusals import Refused

COUNT = 12


def _open_images(shape: Shape) -> np.ndarray | ShardedImages | None:
    """Open the test images, uint8 (N, H, W, C), without reading them; None if there are none of this shape."""
    try:
        if (paths.IMAGES / paths.SHARDS).exists():
            shards = store.read_images("test")
            return shards if shards.shape[1:] == shape else None
        images = np.load(paths.IMAGES / "x_test.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, UserError):
        return None
    return images if images.shape[1:] == shape and images.dtype == np.uint8 else None


def choose(shape: Shape) -> list[int]:
    """Choose COUNT test images, the same ones every time; returns their indices."""
    images = _open_images(shape)
    if images is None:
        return []
    return sorted(np.random.default_rng(0).permutation(len(images))[:COUNT].tolist())


def read_png(index: int, shape: Shape) -> bytes:
    """Encode test image `index` as PNG; raises Refused (404) if there is none."""
    images = _open_images(shape)
    if images is None or not 0 <= index < len(images):
        raise Refused(f"there is no test image {index}", 404)
    file = io.BytesIO()
    Image.fromarray(np.asarray(images[index])).save(file, "PNG")
    return file.getvalue()
