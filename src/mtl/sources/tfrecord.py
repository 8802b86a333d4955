"""TFRecord shards written by `mtl convert`: their manifest and columns. The images are not copied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mtl.config.params import PATH, Data
from mtl.data import shards
from mtl.data.shards import Manifest
from mtl.errors import UserError
from mtl.sources.loaded import class_column
from mtl.tasks.columns import SPLITS, Split
from mtl.tasks.grouping import check_class_count

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Records:
    """Images in shards: their manifest, their shape (H, W, 3), and of each split a table with a row per image."""

    manifest: Manifest
    shape: tuple[int, int, int]
    columns: dict[Split, pa.Table]


def load(data: Data) -> Records:
    """Check every shard in `data.path`, a folder or a URI, against its manifest, and read the columns.

    Raises UserError where the manifest is missing, where a shard is missing or differs from the manifest, where a split
    or class has no images, and where the images are of several sizes without `data.size`.
    """
    path = data.path
    manifest = shards.read_manifest(path)
    shape = _shape(path, manifest, data.size)
    check_class_count(path, manifest.classes)
    for split in ("train", "test"):
        for name in manifest.classes:
            if split not in manifest.splits or not manifest.splits[split].classes.get(name):
                raise UserError(f"{path}: class {name!r} has no images in {split}; add some and convert again")
    columns = {split: class_column(_labels(path, manifest, split), manifest.classes) for split in SPLITS}
    return Records(manifest, shape, columns)


def _shape(path: str, manifest: Manifest, size: int | None) -> tuple[int, int, int]:
    if size is not None:
        return size, size, 3
    (low, high), (narrow, wide) = manifest.height, manifest.width
    if (low, narrow) != (high, wide):
        raise UserError(
            f"{path}: the images are from {narrow}x{low} to {wide}x{high} pixels;"
            f" set data.size in {PATH}, to which all are resized"
        )
    return low, narrow, 3


def _labels(path: str, manifest: Manifest, name: str) -> np.ndarray:
    """Read the labels of a split, int64 (N,), in the order of its records."""
    if name not in manifest.splits:
        return np.empty(0, np.int64)
    split = manifest.splits[name]
    labels = shards.read_labels(shards.check_shards(path, split))
    counts = {label: int((labels == index).sum()) for index, label in enumerate(manifest.classes)}
    if len(labels) != split.count or {label: count for label, count in counts.items() if count} != split.classes:
        raise UserError(f"{path}: the records of {name} are not those that the manifest counts; convert again")
    return labels
