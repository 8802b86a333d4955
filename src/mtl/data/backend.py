"""TensorFlow as every stage uses it: imported quietly, with its fast kernels, and deterministic."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mtl.config.params import Hardware

# What of the environment TensorFlow, oneDNN, XLA and CUDA's libraries compute by begins with one of these. Not with TF_
# alone: that is Terraform's too, with tokens.
_READ = (
    *("TF_ENABLE_", "TF_DISABLE_", "TF_USE_", "TF_XLA_FLAGS", "TF_MKL_", "TF_ONEDNN_", "TF_CONV2D_", "TF_MATMUL_"),
    *("TF_AUTOTUNE_", "TF_JITRT_FLAGS", "TF_CUDNN_", "TF_CUBLAS_", "TF_CUFFT_", "TF_FP16_", "TENSORFLOW_USE_"),
    *("XLA_", "ONEDNN_", "DNNL_", "CUBLAS_", "CUDNN_", "NVIDIA_TF32_OVERRIDE"),
)
# What this project sets itself (None: unset). Numbers of threads and determinism are set in hardware.configure.
_OURS = {"KERAS_BACKEND": "tensorflow", "KERAS_MAX_EPOCHS": None, "KERAS_MAX_STEPS_PER_EPOCH": None}


def settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of an environment that can change what is computed, sorted, without those that the project sets."""
    return {
        name: value
        for name, value in sorted(environment.items())
        if name.startswith(_READ) and not name.endswith("_VERBOSE")
    }


def note_settings() -> dict[str, str]:
    """Say in one line what in the environment can change results; the same as tags of a run.

    Must run before `import_tensorflow`, which sets such variables itself.
    """
    outside = settings(os.environ)
    if outside:
        listed = ", ".join(f"{name}={value}" for name, value in outside.items())
        print(f"set in the environment, can change results, and noted with the run: {listed}", flush=True)
    return {f"environment.{name}": value for name, value in outside.items()}


def import_tensorflow(precision: str | None = None) -> None:
    """Import TensorFlow (seconds) without its notes about CPUs and GPUs, which no setting keeps off the terminal.

    oneDNN's kernels are on by themselves only where the CPU has AVX-512 VNNI or better. In float32 they are twice as
    fast with AVX2 too (bench/precision.py), so a training in float32 takes them wherever the environment does not say
    otherwise.

    Args:
        precision: what will be trained in; None where nothing is trained.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name, value in _OURS.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
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


def configure(hardware: Hardware, precision: str, seed: int) -> None:
    """Make this process deterministic: seeds, ops, number of threads. Sets Keras' precision policy too.

    One line says so where bfloat16 would only be imitated.

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
    # These come from a person's keras.json.
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    keras.config.set_epsilon(1e-7)
    keras.config.set_dtype_policy(precision)
    if precision == "mixed_bfloat16" and native_bfloat16() is False and not tf.config.list_physical_devices("GPU"):
        print("this processor has no bfloat16: the results hold, but float32 would be many times as quick", flush=True)


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
