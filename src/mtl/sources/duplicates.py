"""Images of the same pixels: in several splits they make a test too easy, in several classes they are ambiguous."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import numpy as np

from mtl.data.shards import Duplicates
from mtl.sources.loaded import CLASS, Loaded
from mtl.tasks.columns import SPLITS


def digest(pixels: np.ndarray) -> int:
    """Digest an image, uint8 (H, W, 3): the first 64 bits of the sha256 of its pixels and shape."""
    hasher = sha256(pixels.data, usedforsecurity=False)
    hasher.update(str(pixels.shape).encode())
    return int.from_bytes(hasher.digest()[:8])


def find(digests: np.ndarray, splits: np.ndarray, classes: np.ndarray, name: Callable[[int], str]) -> Duplicates:
    """Find the duplicates among N images, each compared with the first one of the same pixels.

    Args:
        digests: digests of their pixels, uint64 (N,).
        splits: numbers of their splits (N,).
        classes: their classes (N,).
        name: returns the name of an image by its index.
    """
    _, first, group = np.unique(digests, return_index=True, return_inverse=True)
    originals = first[group]
    counts, examples = {}, {}
    for kind, values in (("splits", splits), ("classes", classes)):
        differing = np.flatnonzero(values != values[originals])
        counts[kind] = len(differing)
        if len(differing):
            examples[kind] = (name(int(originals[differing[0]])), name(int(differing[0])))
    return Duplicates(**counts, first=examples)


def find_loaded(loaded: Loaded) -> Duplicates:
    """Find the duplicates among images in memory, in the order of their splits."""
    splits = [split for split in SPLITS if split in loaded.images]
    counts = [len(loaded.images[split]) for split in splits]
    digests = np.fromiter((digest(image) for split in splits for image in loaded.images[split]), np.uint64)
    classes = np.concatenate([loaded.columns[split][CLASS].to_numpy(zero_copy_only=False) for split in splits])
    names = [
        f"{loaded.files[split][position]} ({split})" if loaded.files else f"{split} image {position}"
        for split, count in zip(splits, counts, strict=True)
        for position in range(count)
    ]
    return find(digests, np.repeat(np.arange(len(splits)), counts), classes, names.__getitem__)


def describe(source: str, duplicates: Duplicates) -> str:
    """Describe the duplicates in `source` in one line: their numbers and the first two; empty where there are none."""
    parts = [
        f"{count:,} in several {kind} (first: {' and '.join(duplicates.first[kind])})"
        for kind, count in (("splits", duplicates.splits), ("classes", duplicates.classes))
        if count
    ]
    if not parts:
        return ""
    return f"{source}: images of the same pixels: {', '.join(parts)}; keep one of each, or results say too much"
