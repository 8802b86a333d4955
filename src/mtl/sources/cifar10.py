"""CIFAR-10: a local copy in `data.path`, else Keras' cache, else a download by Keras, which checks the hash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from mtl.config.params import Data
from mtl.errors import UserError
from mtl.sources import folder, official, pickles, trees
from mtl.sources.decoding import progress, resize
from mtl.sources.loaded import CLASS, Loaded, class_column
from mtl.sources.pickles import CLASSES
from mtl.tasks.columns import Split

if TYPE_CHECKING:
    import pyarrow as pa

IMAGES = 60_000
ARRAYS = ".npz"
can_download = official.can_download


def load(data: Data, seed: int) -> Loaded:
    """Load CIFAR-10: images uint8 (N, 32, 32, 3), or of `data.size`, and the column `class`.

    In the official format only the official images are accepted. A folder or archive of <split>/<class>/* may hold
    other images (a copy re-encoded as JPEG), or fewer of them, and the name then says so. Raises UserError where a copy
    is broken or not CIFAR-10, and where there is none and the download fails.
    """
    path = Path(data.path)
    if not path.exists() or trees.has_content(path):
        return _load_copy(pick(path), data.size)
    cached = official.find_cached()
    if cached is None or official.sha256(cached) != official.ARCHIVE_SHA256:
        cached = official.download(path)
    return _load_copy(cached, data.size)


def find_local(path: str) -> Path | None:
    """Return what `load` would read without a download: `path` unless it is empty, else Keras' cache, else None.

    Nothing is decoded, so a broken copy is returned too. `load` reports what is wrong with it.
    """
    local = Path(path)
    return local if trees.has_content(local) else official.find_cached()


def pick(path: Path) -> Path:
    """Return the copy in `path`: the official archive or its unpacked folder, whatever else is there, or an .npz."""
    if path.is_dir():
        for name in (official.ARCHIVE, official.UNPACKED):
            if (path / name).exists():
                return path / name
        content = [
            entry for entry in path.iterdir() if not trees.is_junk(entry.name) and not trees.is_readme(entry.name)
        ]
        if len(content) == 1 and content[0].suffix == ARRAYS:
            return content[0]
    return trees.pick(path)


def _load_copy(path: Path, size: int | None) -> Loaded:
    if path.suffix == ARRAYS:
        return _from_arrays(official.read_arrays(path), size)
    if path.name == official.ARCHIVE and (digest := official.sha256(path)) != official.ARCHIVE_SHA256:
        raise UserError(
            f"{path}: truncated or not the official archive: its sha256 is {digest}, expected"
            f" {official.ARCHIVE_SHA256} ({official.ARCHIVE_BYTES:,} bytes); get it again from {official.URL}"
        )
    tree = trees.list_files(path)
    if not pickles.is_official(tree):
        return _load_folder(tree, size)
    arrays = pickles.parse(tree)
    for name, array in zip(official.ARRAYS_MD5, arrays, strict=True):
        if (digest := official.npy_md5(array)) != official.ARRAYS_MD5[name]:
            raise UserError(
                f"{path}: not the official CIFAR-10: md5 of {name} ({len(array):,} rows) is {digest}, the official one"
                f" {official.ARRAYS_MD5[name]}; put {official.ARCHIVE} there, or other images as <split>/<class>/*.png"
            )
    return _from_arrays(dict(zip(official.ARRAYS_MD5, arrays, strict=True)), size)


def _from_arrays(arrays: Mapping[str, np.ndarray], size: int | None) -> Loaded:
    """A data set of the arrays `x_train`, `y_train`, `x_test` and `y_test`, with what of it is official."""
    parts: tuple[Split, ...] = ("train", "test")
    images: dict[Split, np.ndarray] = {split: arrays[f"x_{split}"] for split in parts}
    columns: dict[Split, pa.Table] = {split: class_column(arrays[f"y_{split}"], CLASSES) for split in parts}
    which = official.recognise(arrays)
    name = _name(which)
    if size is not None and size != pickles.SIDE:
        images = {split: resized(x, size) for split, x in images.items()}
        name, which = f"{name}, resized to {size}x{size}", {}
    return Loaded(name, "raw", images, columns, official=which)


def _name(which: Mapping[str, str]) -> str:
    """The name of the data set, which says what of it is official where not all is."""
    if set(which.values()) == {"all"} and len(which) == 2:
        return "CIFAR-10"
    train = "official training images" if which.get("train") == "all" else "other training images"
    test = {"all": "the official images"}.get(which.get("test", ""), which.get("test", "other images"))
    return f"CIFAR-10, {train}; test: {test}"


def _load_folder(tree: trees.Tree, size: int | None) -> Loaded:
    images = folder.load_tree(tree, size)
    classes = images.columns["train"][CLASS].unique().to_pylist()
    if tuple(classes) != CLASSES:
        differing = ", ".join(sorted({*classes} ^ {*CLASSES}))
        raise UserError(
            f"{tree.path}: not CIFAR-10, its classes are others or not all there ({differing});"
            " for your own images set data.source: folder"
        )
    encoding = "mixed" if images.encoding == "mixed" else images.encoding.upper()
    count = sum(map(len, images.images.values()))
    part = "" if count == IMAGES else f", {count:,} of {IMAGES:,} images"
    return replace(images, name=f"CIFAR-10, {encoding} copy{part}")


def resized(x: np.ndarray, size: int) -> np.ndarray:
    """Resize images, uint8 (N, h, w, 3), to `size` x `size` pixels."""
    images = np.empty((len(x), size, size, 3), np.uint8)
    for index, image in enumerate(progress(x, len(x), "resizing")):
        images[index] = np.asarray(resize(Image.fromarray(image), size))
    return images
