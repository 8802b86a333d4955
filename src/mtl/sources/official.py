"""The official archive of CIFAR-10: its checksums, Keras' cache of it, and its download by Keras."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import requests

from mtl.errors import UserError, one_line

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
ARCHIVE = "cifar-10-python.tar.gz"
UNPACKED = "cifar-10-batches-py"
ARCHIVE_BYTES = 170_498_071
ARCHIVE_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
# The arrays as `np.save` writes them.
ARRAYS_MD5 = {
    "x_train": "794a4871ad6e5afe4edbe5c0c048b5a7",
    "y_train": "f8ebf94fefabced378e2bab00dc77491",
    "x_test": "05852affbaf8e2140acaa95bfd8c602b",
    "y_test": "4846404154c8dd074a57c66c850dcdd1",
}

FIRST_TEST_MD5 = {  # of the first 1,000 test images, likewise
    "x_test": "7a4726348042cb1e6fb191836500bb9f",
    "y_test": "623777f6ebd4c5eb6c9e5c2dce4fd9aa",
}
SIDE = 32  # pixels

# Names of the archive in the caches of Keras 3 and Keras 2.
_CACHED = ("cifar-10-batches-py-target_archive", "cifar-10-batches-py.tar.gz")
_DOWNLOAD_TIMEOUT = 60  # seconds without a byte; Keras sets no timeout


def sha256(path: Path) -> str:
    """Compute the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def npy_md5(array: np.ndarray) -> str:
    """Compute the md5 of the file that `np.save` would write of `array`."""
    md5 = hashlib.md5(usedforsecurity=False)
    np.lib.format.write_array(SimpleNamespace(write=md5.update), array, allow_pickle=False)
    return md5.hexdigest()


def can_download(timeout: float = 8) -> bool:
    """Return True if the archive can be downloaded from Keras' URL, within `timeout` seconds in all."""
    results: list[bool] = []

    def ask() -> None:
        try:
            response = requests.head(URL, timeout=timeout, allow_redirects=True)
        except (requests.RequestException, OSError, ValueError):  # ValueError: the proxy's address is invalid
            return
        results.append(response.ok and response.headers.get("Content-Length") in (None, str(ARCHIVE_BYTES)))

    # The timeout of requests does not cover the lookup of the name, which takes a minute on some machines without
    # network. So it runs in a daemon thread, which is abandoned after the timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    return results == [True]


def find_cached() -> Path | None:
    """Return the archive in Keras' cache, or None if it is missing or of another length."""
    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    # Keras uses /tmp where it cannot write to its home.
    paths = [folder / "datasets" / name for folder in (home, Path("/tmp/.keras")) for name in _CACHED]
    return next((path for path in paths if path.is_file() and path.stat().st_size == ARCHIVE_BYTES), None)


def download(path: Path) -> Path:
    """Let Keras download the archive into its cache and return its path.

    Raises UserError where that fails, which names `path` as the place for a copy.
    """
    import keras

    try:
        with _socket_timeout(_DOWNLOAD_TIMEOUT):
            keras.datasets.cifar10.load_data()
        reason = "" if (cached := find_cached()) else "Keras stored it elsewhere"
    except Exception as error:  # Keras raises plain Exception where the URL fails, ValueError where the hash is wrong
        cached, reason = None, " ".join(str(error).split()) or type(error).__name__
    if cached is None:
        raise UserError(
            f"no CIFAR-10 in {path} nor in Keras' cache, and the download from {URL} failed ({reason});"
            f" put {ARCHIVE} into {path}, or set data.source: generated"
        )
    return cached


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(previous)


def recognise(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Which of the splits are official to the byte: `all`, or of a test set the beginning that it is."""
    digests = {name: npy_md5(np.ascontiguousarray(array)) for name, array in arrays.items()}
    which = {}
    for split in ("train", "test"):
        names = (f"x_{split}", f"y_{split}")
        if all(digests[name] == ARRAYS_MD5[name] for name in names):
            which[split] = "all"
    if "test" not in which and all(digests[name] == digest for name, digest in FIRST_TEST_MD5.items()):
        which["test"] = "the first 1,000 of 10,000"
    return which


def read_arrays(path: Path, splits: Sequence[str] = ("train", "test")) -> dict[str, np.ndarray]:
    """Read an .npz of `x_<split>` and `y_<split>` for each of the splits, as `keras.datasets.cifar10` types them.

    Labels may be (N,) and of any integer type. Raises UserError where other arrays, shapes or types are in it, or
    objects, which are never unpickled.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        reason = "a pickled object" if "allow_pickle" in str(error) else one_line(error)
        raise UserError(f"{path}: not an .npz of NumPy arrays: {reason}; save one by numpy.savez") from None
    names = [f"{letter}_{split}" for split in splits for letter in "xy"]
    if set(arrays) != set(names):
        raise UserError(f"{path}: holds {', '.join(sorted(arrays)) or 'nothing'}; needed are {', '.join(names)}")
    for split in splits:
        x, y = arrays[f"x_{split}"], arrays[f"y_{split}"]
        if x.dtype != np.uint8 or x.ndim != 4 or x.shape[1:] != (SIDE, SIDE, 3) or not len(x):
            raise UserError(f"{path}: x_{split} is {x.dtype} {x.shape}; uint8 (N, {SIDE}, {SIDE}, 3) is needed")
        if y.dtype.kind not in "iu" or y.size != len(x) or y.shape not in ((len(x),), (len(x), 1)):
            raise UserError(f"{path}: y_{split} is {y.dtype} {y.shape}; {len(x)} labels, integers, are needed")
        if y.min() < 0 or y.max() > 9:
            raise UserError(f"{path}: y_{split} has labels from {y.min()} to {y.max()}; 0 to 9 are CIFAR-10's")
        arrays[f"y_{split}"] = y.reshape(-1, 1).astype(np.uint8)
    return arrays
