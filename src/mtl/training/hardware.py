"""The hardware of a training: determinism, threads, precision and the distribution strategy."""

from __future__ import annotations

import faulthandler
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from mtl.config.params import Hardware
from mtl.data.backend import import_tensorflow as import_tensorflow
from mtl.errors import UserError, one_line
from mtl.training.multiworker import cluster, meeting

if TYPE_CHECKING:
    import tensorflow as tf

CONNECT_SECONDS = 60  # for TensorFlow to connect workers that have all seen each other


def strategy(hardware: Hardware, training: str = "") -> tf.distribute.Strategy:
    """The strategy that `hardware.strategy` asks for; one line says which, where it is not one device.

    `auto` takes a TPU where one answers, else all GPUs where there are several, else the one device there is.
    `training` is what the workers of `multi_worker` tell each other that they train.

    Raises:
        UserError: no TPU answers; TF_CONFIG is wrong; another worker does not come within `hardware.wait_seconds`, or
            comes for another training.
    """
    import tensorflow as tf

    if hardware.strategy == "multi_worker":  # first of all: it must be made before TensorFlow looks at its devices
        chosen = _multi_worker(hardware, training)
    elif hardware.strategy == "tpu" or (hardware.strategy == "auto" and _has_tpu()):
        chosen = _tpu()
    else:
        gpus = tf.config.list_logical_devices("GPU")
        if hardware.strategy == "mirrored" or (hardware.strategy == "auto" and len(gpus) > 1):
            chosen = tf.distribute.MirroredStrategy()
        else:
            chosen = tf.distribute.OneDeviceStrategy("GPU:0" if gpus else "CPU:0")
    if name(chosen) != "one_device":
        print(f"hardware.strategy: {name(chosen)}, each batch is shared by {chosen.num_replicas_in_sync}", flush=True)
    return chosen


def name(strategy: tf.distribute.Strategy) -> str:
    """The name of a strategy in params.yaml."""
    import tensorflow as tf

    names = {
        tf.distribute.MultiWorkerMirroredStrategy: "multi_worker",
        tf.distribute.MirroredStrategy: "mirrored",
        tf.distribute.TPUStrategy: "tpu",
    }
    return next((name for kind, name in names.items() if isinstance(strategy, kind)), "one_device")


def one_machine(hardware: Hardware, what: str) -> Hardware:
    """`hardware`, for `what` runs on one machine alone. Raises UserError where it asks for several."""
    if hardware.strategy == "multi_worker":
        raise UserError(f"hardware.strategy: multi_worker is for the stage train; {what} runs on one machine: use auto")
    return hardware


def _multi_worker(hardware: Hardware, training: str) -> tf.distribute.Strategy:
    import tensorflow as tf

    ours = cluster.read()
    gpus = len(tf.config.list_physical_devices("GPU"))
    if gpus > 1:
        raise UserError(f"strategy multi_worker: {gpus} GPUs here; start a worker for each, by CUDA_VISIBLE_DEVICES")
    print(
        f"worker {ours.index} of {len(ours.workers)}: waits at most {hardware.wait_seconds} s for the others, and",
        end="",
    )
    print(f" {CONNECT_SECONDS} s for TensorFlow to connect them", flush=True)
    meeting.meet(ours, hardware.wait_seconds, training)
    # No signal and no thread of Python's gets through while TensorFlow waits for a worker that died just now.
    with Path(os.devnull).open("w") as nowhere:
        faulthandler.dump_traceback_later(CONNECT_SECONDS, exit=True, file=nowhere)
        try:
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except (tf.errors.OpError, RuntimeError) as error:
            raise UserError(f"strategy multi_worker: cannot connect the workers: {one_line(error)[:300]}") from None
        finally:
            faulthandler.cancel_dump_traceback_later()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # TensorFlow only takes note of it; `kill` is to end a worker
    return strategy


def _has_tpu() -> bool:
    """Tell whether this machine has a TPU. Asking the resolver elsewhere would search the network."""
    return bool(os.environ.get("TPU_NAME")) or Path("/dev/accel0").exists()


def _tpu() -> tf.distribute.Strategy:
    """Never run: no machine of this project has a TPU."""
    import tensorflow as tf

    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(os.environ.get("TPU_NAME", "local"))
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (tf.errors.OpError, ValueError, RuntimeError, OSError) as error:
        raise UserError(f"hardware.strategy: no TPU answers: {one_line(error)[:120]}; use auto or one_device") from None
