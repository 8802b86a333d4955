"""What a training runs on: determinism, threads, precision and the distribution strategy."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.params import Hardware

if TYPE_CHECKING:
    import tensorflow as tf


def import_tensorflow() -> None:
    """Import TensorFlow (seconds) without its notes about CPUs and GPUs, which no setting keeps off the terminal."""
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


def configure(hardware: Hardware, precision: str, seed: int) -> None:
    """Make this process deterministic: seeds, ops, number of threads. Sets Keras' precision policy too.

    Must run before TensorFlow computes anything. The same seed and threads give the same weights to the byte on one
    machine; another number of threads sums in another order and does not.
    """
    import keras
    import tensorflow as tf

    keras.utils.clear_session()  # names of layers count from one again: they are bytes of the saved model
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    tf.config.threading.set_intra_op_parallelism_threads(hardware.threads)
    tf.config.threading.set_inter_op_parallelism_threads(hardware.threads)
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)  # two trainings on one card must both fit
    keras.config.set_dtype_policy(precision)


def strategy(hardware: Hardware) -> tf.distribute.Strategy:
    """The strategy that `hardware.strategy` asks for; `auto` mirrors over the GPUs where there are several."""
    import tensorflow as tf

    gpus = tf.config.list_logical_devices("GPU")
    if hardware.strategy == "mirrored" or (hardware.strategy == "auto" and len(gpus) > 1):
        return tf.distribute.MirroredStrategy()
    return tf.distribute.OneDeviceStrategy("GPU:0" if gpus else "CPU:0")


def native_bfloat16() -> bool | None:
    """Whether this CPU multiplies bfloat16 itself (AVX512-BF16, AMX or ARM BF16); None where it cannot be told."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16"))


def machine() -> dict[str, Any]:
    """Processor, its bfloat16 instructions and the cores that this process may use: what a measured time belongs to."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "native_bfloat16": native_bfloat16(),
        "system": f"{platform.system()} {platform.machine()}",
    }
