"""TensorFlow for every stage: imported quietly, with its fast kernels, and deterministic."""

from __future__ import annotations

import logging
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mtl.config.params import Hardware
from mtl.config.recipes import Recipe

# Prefixes of the environment variables that change what TensorFlow, oneDNN, XLA and CUDA's libraries compute. Not TF_
# alone, which is Terraform's prefix too, for tokens among others.
_PREFIXES = (
    *("TF_ENABLE_", "TF_DISABLE_", "TF_USE_", "TF_XLA_FLAGS", "TF_MKL_", "TF_ONEDNN_", "TF_CONV2D_", "TF_MATMUL_"),
    *("TF_AUTOTUNE_", "TF_JITRT_FLAGS", "TF_CUDNN_", "TF_CUBLAS_", "TF_CUFFT_", "TF_FP16_", "TENSORFLOW_USE_"),
    *("XLA_", "ONEDNN_", "DNNL_", "CUBLAS_", "CUDNN_", "NVIDIA_TF32_OVERRIDE"),
)
# Variables that this project sets itself (None: unset). `configure` sets the numbers of threads and determinism.
_PROJECT = {"KERAS_BACKEND": "tensorflow", "KERAS_MAX_EPOCHS": None, "KERAS_MAX_STEPS_PER_EPOCH": None}


def settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Select the variables of an environment that can change results, sorted, without those that the project sets."""
    return {
        name: value
        for name, value in sorted(environment.items())
        if name.startswith(_PREFIXES) and not name.endswith("_VERBOSE")
    }


def note_settings() -> dict[str, str]:
    """Print in one line the variables of the environment that can change results, and return them as tags of a run.

    Must run before `import_tensorflow`, which sets such variables itself.
    """
    outside = settings(os.environ)
    if outside:
        listed = ", ".join(f"{name}={value}" for name, value in outside.items())
        print(f"set in the environment, can change results, and noted with the run: {listed}", flush=True)
    return {f"environment.{name}": value for name, value in outside.items()}


def import_tensorflow(precision: str | None = None) -> None:
    """Import TensorFlow, which takes seconds, without its notes about CPUs and GPUs, which no setting suppresses.

    oneDNN's kernels are on by themselves only where the CPU has AVX-512 VNNI or better. In float32 they are twice as
    fast with AVX2 too (bench/precision.py), so a training in float32 takes them wherever the environment does not say
    otherwise.

    Args:
        precision: precision of the training, which may be `auto`; None where nothing is trained.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name, value in _PROJECT.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    if precision == "float32" or (precision == "auto" and native_bfloat16() is False):
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    with Path(os.devnull).open("wb") as nowhere, stderr_to(nowhere.fileno()):
        import tensorflow as tf

        tf.config.list_physical_devices()
    # Several models, each with its own compiled function, are no loop that compiles one again and again.
    logging.getLogger("tensorflow").addFilter(lambda record: "retracing" not in record.getMessage())


@contextmanager
def stderr_to(target: int) -> Iterator[None]:
    """Redirect stderr of this process, C++ included, and its children to the file descriptor `target`."""
    sys.stderr.flush()
    original = os.dup(2)
    os.dup2(target, 2)
    try:
        yield
    finally:
        os.dup2(original, 2)
        os.close(original)


def configure(hardware: Hardware, precision: str, seed: int) -> None:
    """Make this process deterministic: seeds, ops, number of threads. Sets Keras' precision policy too.

    Prints a line where bfloat16 is only emulated.

    Must run before TensorFlow computes anything. On one machine the same seed and number of threads give the same
    weights to the byte. Another number of threads sums in another order and gives other weights.
    """
    import keras
    import tensorflow as tf

    keras.utils.clear_session()  # restarts the numbers in names of layers, which are bytes of the saved model
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    tf.config.threading.set_intra_op_parallelism_threads(hardware.threads)
    tf.config.threading.set_inter_op_parallelism_threads(hardware.threads)
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)  # two trainings on one card must both fit
    # A user's keras.json may set other values.
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    keras.config.set_epsilon(1e-7)
    keras.config.set_dtype_policy(precision)
    if precision == "mixed_bfloat16" and native_bfloat16() is False and not tf.config.list_physical_devices("GPU"):
        print("this processor has no bfloat16: the results hold, but float32 would be many times as quick", flush=True)


def resolve(recipe: Recipe, gpus: Sequence[object]) -> Recipe:
    """The recipe with the precision that `auto` stands for: bfloat16 where GPUs or this processor have it.

    Emulated convolutions take many times as long as those of float32 (bench/precision.py). Where it cannot be told
    whether the processor has bfloat16, it is taken.

    Args:
        recipe: any recipe; one that states its precision is returned as it is.
        gpus: the devices that train instead of the processor.
    """
    if recipe.precision != "auto":
        return recipe
    emulated = native_bfloat16() is False and not gpus
    return recipe.model_copy(update={"precision": "float32" if emulated else "mixed_bfloat16"})


def resolve_here(recipe: Recipe) -> Recipe:
    """`resolve` for the devices that TensorFlow, imported before, has here; one line says what was chosen."""
    import tensorflow as tf

    resolved = resolve(recipe, tf.config.list_physical_devices("GPU"))
    if resolved is not recipe:
        print(f"precision: {resolved.precision}, by auto", flush=True)
    return resolved


def native_bfloat16() -> bool | None:
    """Return True if this CPU has instructions for bfloat16 (AVX512-BF16, AMX or ARM BF16); None if that is unknown."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16"))


def machine() -> dict[str, Any]:
    """Describe the machine that times are measured on: its processor and the cores that this process may use."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "native_bfloat16": native_bfloat16(),
        "system": f"{platform.system()} {platform.machine()}",
    }
