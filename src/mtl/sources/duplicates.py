"""The same picture in two places: learned by heart it is then tested, or it is taught under two names."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import numpy as np

from mtl.data.shards import Duplicates
from mtl.sources.images import Images


def digest(pixels: np.ndarray) -> int:
    """What tells the image uint8 (H, W, 3) from those of other pixels, 64 bits."""
    found = sha256(pixels.data, usedforsecurity=False)
    found.update(str(pixels.shape).encode())
    return int.from_bytes(found.digest()[:8])


def find(digests: np.ndarray, splits: np.ndarray, classes: np.ndarray, name: Callable[[int], str]) -> Duplicates:
    """The duplicates among N images.

    Args:
        digests: of their pixels, uint64 (N,).
        splits: numbers (N,); an image is compared with the first one of the same pixels.
        classes: numbers (N,).
        name: the name of an image by its index.
    """
    _, first, same = np.unique(digests, return_index=True, return_inverse=True)
    before = first[same]
    counts, named = {}, {}
    for kind, values in (("splits", splits), ("classes", classes)):
        others = np.flatnonzero(values != values[before])
        counts[kind] = len(others)
        if len(others):
            named[kind] = (name(int(before[others[0]])), name(int(others[0])))
    return Duplicates(**counts, first=named)


def among(images: Images, validation: np.ndarray) -> Duplicates:
    """The duplicates among images in memory, of which those in `validation` (indices of train) are held out."""
    train, test = len(images.x_train), len(images.x_test)
    digests = np.fromiter((digest(image) for x in (images.x_train, images.x_test) for image in x), np.uint64)
    splits = np.repeat([0, 2], [train, test])
    splits[validation] = 1

    def name(index: int) -> str:
        split, place = ("train", index) if index < train else ("test", index - train)
        known = images.files[split][place] if images.files else f"{split} image {place}"
        return f"{known} (held out)" if splits[index] == 1 else known

    return find(digests, splits, np.concatenate([images.y_train, images.y_test]).ravel(), name)


def line(where: str, found: Duplicates) -> str:
    """One line that counts the duplicates and names the first; empty where there are none."""
    parts = [
        f"{count:,} in several {kind} (first: {' and '.join(found.first[kind])})"
        for kind, count in (("splits", found.splits), ("classes", found.classes))
        if count
    ]
    if not parts:
        return ""
    return f"{where}: images of the same pixels: {', '.join(parts)}; keep one of each, or results say too much"
