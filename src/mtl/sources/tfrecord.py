"""TFRecord shards written by `mtl convert`: their manifest and columns. The images are not copied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtl.config.params import PATH, Data
from mtl.data import shards
from mtl.data.shards import Manifest, SplitRecords
from mtl.errors import UserError
from mtl.sources.loaded import class_column
from mtl.tasks.columns import SPLITS, Split

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

    Raises UserError where the manifest is missing, where a shard is missing or differs from the manifest, where
    train or test has no images, and where the images are of several sizes without `data.size`.
    """
    path = data.path
    manifest = shards.read_manifest(path)
    shape = _shape(path, manifest, data.size)
    for split in ("train", "test"):
        if split not in manifest.splits or not manifest.splits[split].count:
            raise UserError(f"{path}: no images in {split}; add some and convert again")
    return Records(manifest, shape, {split: _columns(path, manifest, split) for split in SPLITS})


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


def _columns(path: str, manifest: Manifest, name: Split) -> pa.Table:
    """Read the columns of a split, in the order of its records; those of version 1 are the one column `class`."""
    split = manifest.splits.get(name, SplitRecords(shards=()))
    files = shards.check_shards(path, split)
    fault = UserError(f"{path}: the records of {name} are not those that the manifest counts; convert again")
    if manifest.version == 1:
        labels = shards.read_columns(files, {"label": "integer"})["label"].to_numpy()
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(manifest.classes):
            raise fault
        table = class_column(labels, manifest.classes)
        known = {}
    else:
        table = shards.read_columns(files, manifest.types)
        known = {column: len(table) - table[column].null_count for column in manifest.types}
    if len(table) != split.count or any(split.known.get(column, 0) != count for column, count in known.items()):
        raise fault
    return table
