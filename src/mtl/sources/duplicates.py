"""Images of the same pixels: in several splits they make a test too easy; with several values they are ambiguous."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256

import numpy as np

from mtl.data.shards import Duplicates
from mtl.sources.loaded import Loaded
from mtl.tasks.columns import SPLITS

SHOWN = 5  # pairs that are named


def digest(pixels: np.ndarray) -> int:
    """Digest an image, uint8 (H, W, 3): the first 64 bits of the sha256 of its pixels and shape."""
    hasher = sha256(pixels.data, usedforsecurity=False)
    hasher.update(str(pixels.shape).encode())
    return int.from_bytes(hasher.digest()[:8])


def find(
    digests: np.ndarray, splits: np.ndarray, columns: Mapping[str, Sequence[object]], name: Callable[[int], str]
) -> Duplicates:
    """Find the duplicates among N images, each compared with the first one of the same pixels.

    Args:
        digests: digests of their pixels, uint64 (N,).
        splits: numbers of their splits (N,).
        columns: values (N,) of each column; None is a gap, which differs from nothing.
        name: returns the name of an image by its index.
    """
    _, first, group = np.unique(digests, return_index=True, return_inverse=True)
    originals = first[group]
    repeated = np.flatnonzero(originals != np.arange(len(digests))).tolist()

    def differs(values: Sequence[object], index: int) -> bool:
        one, other = values[originals[index]], values[index]
        return one is not None and other is not None and one != other

    found = {
        "splits": [index for index in repeated if splits[index] != splits[originals[index]]],
        "classes": [index for index in repeated if any(differs(values, index) for values in columns.values())],
    }
    examples = {
        kind: tuple(f"{name(int(originals[index]))} and {name(int(index))}" for index in indices[:SHOWN])
        for kind, indices in found.items()
        if indices
    }
    return Duplicates(splits=len(found["splits"]), classes=len(found["classes"]), first=examples)


def find_loaded(loaded: Loaded) -> Duplicates:
    """Find the duplicates among images in memory, in the order of their splits."""
    splits = [split for split in SPLITS if split in loaded.images]
    counts = [len(loaded.images[split]) for split in splits]
    digests = np.fromiter((digest(image) for split in splits for image in loaded.images[split]), np.uint64)
    columns = {
        name: [value for split in splits for value in loaded.columns[split][name].to_pylist()]
        for name in loaded.columns["train"].column_names
    }
    names = [
        f"{loaded.files[split][position]} ({split})" if loaded.files else f"{split} image {position}"
        for split, count in zip(splits, counts, strict=True)
        for position in range(count)
    ]
    return find(digests, np.repeat(np.arange(len(splits)), counts), columns, names.__getitem__)


def describe(source: str, duplicates: Duplicates) -> str:
    """Describe the duplicates in `source` in one line: their numbers and the first few; empty where there are none."""
    parts = [
        f"{count:,} in several {kind} ({'; '.join(duplicates.first[kind])})"
        for kind, count in (("splits", duplicates.splits), ("classes", duplicates.classes))
        if count
    ]
    if not parts:
        return ""
    return f"{source}: images of the same pixels: {', '.join(parts)}; keep one of each, or results say too much"
