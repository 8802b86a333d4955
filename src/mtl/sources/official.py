"""The official archive of CIFAR-10: what it must be to the byte, Keras' cache of it, and its download by Keras."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import requests

from mtl.errors import UserError

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

# What Keras 3 and Keras 2 call the archive in their cache.
_CACHED = ("cifar-10-batches-py-target_archive", "cifar-10-batches-py.tar.gz")
_DOWNLOAD_TIMEOUT = 60  # seconds without a byte; Keras sets none and would wait for ever


def sha256(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def npy_md5(array: np.ndarray) -> str:
    """The md5 of the file that `np.save` writes of `array`, without writing it."""
    md5 = hashlib.md5(usedforsecurity=False)
    np.lib.format.write_array(SimpleNamespace(write=md5.update), array, allow_pickle=False)
    return md5.hexdigest()


def can_download(timeout: float = 8) -> bool:
    """Whether the archive can be fetched from where Keras gets it, asked within `timeout` seconds in all."""
    answer: list[bool] = []

    def ask() -> None:
        try:
            reply = requests.head(URL, timeout=timeout, allow_redirects=True)
        except (requests.RequestException, OSError, ValueError):  # ValueError: a proxy whose address is none
            return
        answer.append(reply.ok and reply.headers.get("Content-Length") in (None, str(ARCHIVE_BYTES)))

    # The timeout of requests does not cover the lookup of the name, which takes a minute on some machines without
    # network; a daemon thread is left behind instead of waited for.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    return answer == [True]


def find_cached() -> Path | None:
    """The archive in Keras' cache, as it stores it, if its length is right."""
    home = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
    # Where its home cannot be written to, Keras uses /tmp.
    paths = [place / "datasets" / name for place in (home, Path("/tmp/.keras")) for name in _CACHED]
    return next((path for path in paths if path.is_file() and path.stat().st_size == ARCHIVE_BYTES), None)


def download(path: Path) -> Path:
    """Let Keras download the archive into its cache; return where it is. `path` is where a person may put a copy."""
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
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
