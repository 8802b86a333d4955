"""TensorFlow, imported with its fast kernels and without what it says about the machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def import_tensorflow() -> None:
    """Import TensorFlow (seconds) without its notes about CPUs and GPUs, which no setting keeps off the terminal.

    oneDNN's kernels are on by themselves only where the CPU has AVX-512 VNNI or better; they are twice as fast with
    AVX2 too (bench/precision.py), so they are taken wherever the environment does not say otherwise.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with Path(os.devnull).open("wb") as nowhere, _stderr_to(nowhere.fileno()):
        import tensorflow as tf

        tf.config.list_physical_devices()


@contextmanager
def _stderr_to(target: int) -> Iterator[None]:
    """Send what C++ writes to stderr elsewhere; an exception still reaches the real one."""
    sys.stderr.flush()
    kept = os.dup(2)
    os.dup2(target, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
