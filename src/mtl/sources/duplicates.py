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

    In each column it is compared with the first one whose value is known.

    Args:
        digests: digests of their pixels, uint64 (N,).
        splits: numbers of their splits (N,).
        columns: values (N,) of each column; None is a gap, which differs from nothing.
        name: returns the name of an image by its index.
    """
    _, first, group = np.unique(digests, return_index=True, return_inverse=True)
    originals, numbers = first[group], np.arange(len(digests))
    repeated = np.flatnonzero(originals != numbers)
    # Pairs of an image and the one that it is compared with.
    in_splits = {
        index: int(originals[index]) for index in repeated.tolist() if splits[index] != splits[originals[index]]
    }
    in_classes: dict[int, int] = {}
    differing: dict[int, list[str]] = {}  # columns by image
    members = np.flatnonzero(np.isin(originals, originals[repeated])).tolist()
    for column, values in columns.items():
        known: dict[int, int] = {}  # the first image of the same pixels with a value
        for index in members:
            if values[index] is not None:
                other = known.setdefault(int(group[index]), index)
                if values[other] != values[index]:
                    in_classes.setdefault(index, other)
                    differing.setdefault(index, []).append(column)

    def names(pairs: Mapping[int, int]) -> list[tuple[int, str]]:
        return [(index, f"{name(pairs[index])} and {name(index)}") for index in sorted(pairs)[:SHOWN]]

    examples = {
        "splits": tuple(text for _, text in names(in_splits)),
        "classes": tuple(
            text if len(columns) == 1 else f"{text}: {', '.join(differing[index])}" for index, text in names(in_classes)
        ),
    }
    return Duplicates(
        splits=len(in_splits), classes=len(in_classes), first={kind: pairs for kind, pairs in examples.items() if pairs}
    )


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
