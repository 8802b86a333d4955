"""The official format of CIFAR-10: five pickled batches of training images and one of test images."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from mtl.errors import UserError
from mtl.sources.trees import Tree

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = ("test_batch",)
SIDE = 32

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def is_official(tree: Tree) -> bool:
    """Whether the tree holds files of the official format."""
    return not {PurePosixPath(name).name for name in tree.files}.isdisjoint(TRAIN + TEST)


def parse(tree: Tree) -> Arrays:
    """Read x_train, y_train, x_test, y_test: uint8 (N, 32, 32, 3) and (N, 1), from an archive or unpacked folder.

    Nothing is run that is in the files: the unpickler knows NumPy arrays and the built-in containers alone.
    Raises UserError where a batch is missing, is no batch, or holds anything else.
    """
    found = {PurePosixPath(name).name: name for name in tree.files}
    missing = [name for name in TRAIN + TEST if name not in found]
    if missing:
        raise UserError(f"{tree.path}: {', '.join(missing)} missing; put the whole cifar-10-python.tar.gz there")
    parsed = {
        PurePosixPath(name).name: _parse_batch(content, f"{tree.path}: {name}")
        for name, content in tree.read(found[name] for name in TRAIN + TEST)
    }
    return (*_join([parsed[name] for name in TRAIN]), *_join([parsed[name] for name in TEST]))


def _join(batches: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Planes (N, 3072) of all batches -> pixels (N, 32, 32, 3), written once."""
    count = sum(len(labels) for _, labels in batches)
    x, start = np.empty((count, SIDE, SIDE, 3), np.uint8), 0
    for data, _ in batches:
        x[start : start + len(data)] = data.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
        start += len(data)
    return x, np.concatenate([labels for _, labels in batches])[:, None]


def _parse_batch(content: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        batch = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
        data, labels = batch[b"data"], np.asarray(batch[b"labels"])
        fits = (data.dtype, data.shape, labels.shape) == (np.uint8, (len(data), 3 * SIDE * SIDE), (len(data),))
        fits = fits and labels.dtype.kind in "iu" and bool(((labels >= 0) & (labels < len(CLASSES))).all())
    except Exception as error:  # a broken pickle raises whatever its bytes happen to mean
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name}: not a batch of CIFAR-10 ({reason}); put the official copy there") from error
    if not fits:
        raise UserError(
            f"{name}: not a batch of CIFAR-10; expected data as uint8 (N, 3072) and N labels from 0 to 9, one of each"
        )
    return data, labels.astype(np.uint8)


class _ArraysOnly(pickle.Unpickler):
    """Pickle runs whatever a file names; this one refuses all names but those that an array is made of."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _allowed():
            return _allowed()[module, name]
        raise pickle.UnpicklingError(f"refused to run {module}.{name}")


def _allowed() -> dict[tuple[str, str], Callable[..., Any]]:
    reconstruct, from_buffer = (np.empty(1).__reduce_ex__(protocol)[0] for protocol in (2, 5))
    return {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): reconstruct,  # as NumPy 1 wrote it, and the official archive
        ("numpy._core.multiarray", "_reconstruct"): reconstruct,
        ("numpy._core.numeric", "_frombuffer"): from_buffer,
    }
