"""A few test images to click on, where data/raw is at hand."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from mtl.data import paths, store
from mtl.errors import UserError
from mtl.serving.pixels import Shape
from mtl.serving.refusals import Refused

COUNT = 12


def _images(shape: Shape) -> np.ndarray | None:
    """The test images, uint8 (N, H, W, C), not read into memory; None where there are none of this shape."""
    try:
        if (paths.RAW / paths.SHARDS).exists():
            images = store.read_images("test")
            return images if images.shape[1:] == shape else None
        images = np.load(paths.RAW / "x_test.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, UserError):
        return None
    return images if images.shape[1:] == shape and images.dtype == np.uint8 else None


def listed(shape: Shape) -> list[int]:
    """Indices of COUNT test images, the same ones every time."""
    images = _images(shape)
    if images is None:
        return []
    return sorted(np.random.default_rng(0).permutation(len(images))[:COUNT].tolist())


def png(index: int, shape: Shape) -> bytes:
    """The test image `index` as a PNG; raises Refused (404) where there is none."""
    images = _images(shape)
    if images is None or not 0 <= index < len(images):
        raise Refused(f"there is no test image {index}", 404)
    file = io.BytesIO()
    Image.fromarray(np.asarray(images[index])).save(file, "PNG")
    return file.getvalue()
