"""The official format of CIFAR-10: five pickled batches of training images and one of test images."""

from __future__ import annotations

import io
import pickle
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from mtl.errors import UserError
from mtl.sources.trees import Tree

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = ("test_batch",)
SIDE = 32
_ALLOWED = frozenset(
    {
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "_reconstruct"),  # written by NumPy 1, as in the official archive
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.numeric", "_frombuffer"),
    }
)

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def is_official(tree: Tree) -> bool:
    """Return True if the tree holds files of the official format."""
    return not {PurePosixPath(name).name for name in tree.files}.isdisjoint(TRAIN + TEST)


def parse(tree: Tree) -> Arrays:
    """Read x_train, y_train, x_test, y_test: uint8 (N, 32, 32, 3) and (N, 1), from an archive or unpacked folder.

    No code in the files is run: the unpickler accepts NumPy arrays and built-in containers only. Raises UserError where
    a batch is missing, is not a batch, or holds anything else.
    """
    paths = {PurePosixPath(path).name: path for path in tree.files}
    missing = [name for name in TRAIN + TEST if name not in paths]
    if missing:
        raise UserError(f"{tree.path}: {', '.join(missing)} missing; put the whole cifar-10-python.tar.gz there")
    parsed = {
        PurePosixPath(path).name: _parse_batch(content, f"{tree.path}: {path}")
        for path, content in tree.read(paths[name] for name in TRAIN + TEST)
    }
    return (*_join([parsed[name] for name in TRAIN]), *_join([parsed[name] for name in TEST]))


def _join(batches: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Join the batches, planes (N, 3072) with N labels, into pixels (N, 32, 32, 3) and labels (N, 1)."""
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
    """An unpickler that loads only the names of which a pickled array consists; Python's runs any name in a file."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"refused to run {module}.{name}")
        return super().find_class(module, name)
