"""TFRecord shards that `mtl convert` wrote: their manifest and labels; the images stay where they are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtl.config.params import PATH, Data
from mtl.data import shards
from mtl.data.shards import MANIFEST, Manifest
from mtl.errors import UserError, one_line
from mtl.sources.images import check_count


@dataclass(frozen=True)
class Records:
    """What is known of images in shards: the manifest, their shape, and the labels, uint8 (N, 1), of each split."""

    manifest: Manifest
    shape: tuple[int, int, int]
    labels: dict[str, np.ndarray]


def load(data: Data) -> Records:
    """Check every shard in `data.path`, a folder or a URI, against its manifest, and read the labels.

    Raises UserError where there is no manifest, or a shard is missing, truncated or not what the manifest says, where a
    split or class has no images, and where the images are of several sizes without `data.size`.
    """
    path = data.path
    manifest = read_manifest(path)
    shape = _shape(path, manifest, data.size)
    check_count(path, manifest.classes)
    for split in ("train", "test"):
        for name in manifest.classes:
            if split not in manifest.splits or not manifest.splits[split].classes.get(name):
                raise UserError(f"{path}: class {name!r} has no images in {split}; add some and convert again")
    labels = {split: _labels(path, manifest, split) for split in shards.SPLITS}
    return Records(manifest, shape, labels)


def read_manifest(path: str) -> Manifest:
    """The manifest in the folder or URI `path`."""
    where = shards.join(path, MANIFEST)
    try:
        content = _read(where)
    except FileNotFoundError:
        raise UserError(f"{where} is missing; make shards of your images with `mtl convert`") from None
    except Exception as error:  # each file system of fsspec raises its own
        raise UserError(f"{where}: cannot be read: {one_line(error)}") from error
    try:
        return shards.parse(json.loads(content), where)
    except ValueError as error:
        raise UserError(f"{where}: not valid JSON ({one_line(error)}); convert again") from None


def _read(where: str) -> bytes:
    if not shards.is_remote(where):
        return Path(where).read_bytes()
    import fsspec

    with fsspec.open(where, "rb") as file:
        return file.read()


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
    """The labels of a split, uint8 (N, 1), in the order of its records."""
    if name not in manifest.splits:
        return np.empty((0, 1), np.uint8)
    split = manifest.splits[name]
    files: list[Any] = []
    for shard in split.shards:
        files.append(shards.local(path, shard))
        shards.check(files[-1], shard, shards.join(path, shard.file))
    labels = shards.read_labels(files)
    found = {label: int((labels == index).sum()) for index, label in enumerate(manifest.classes)}
    if len(labels) != split.count or {key: n for key, n in found.items() if n} != split.classes:
        raise UserError(f"{path}: the records of {name} are not those that the manifest counts; convert again")
    return labels.astype(np.uint8)[:, None]
