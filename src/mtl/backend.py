"""TensorFlow, imported with its fast kernels and without what it says about the machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def import_tensorflow(precision: str | None = None) -> None:
    """Import TensorFlow (seconds) without its notes about CPUs and GPUs, which no setting keeps off the terminal.

    oneDNN's kernels are on by themselves only where the CPU has AVX-512 VNNI or better. In float32 they are twice as
    fast with AVX2 too (bench/precision.py), so a training in float32 takes them wherever the environment does not say
    otherwise.

    Args:
        precision: what will be trained in; None where nothing is trained.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if precision == "float32":
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    with Path(os.devnull).open("wb") as nowhere, stderr_to(nowhere.fileno()):
        import tensorflow as tf

        tf.config.list_physical_devices()


@contextmanager
def stderr_to(target: int) -> Iterator[None]:
    """Send what this process, C++ too, and its children write to stderr elsewhere, as long as this lasts."""
    sys.stderr.flush()
    kept = os.dup(2)
    os.dup2(target, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
