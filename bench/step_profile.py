"""Where a training step of `compact` spends its time: `python bench/step_profile.py [--steps 4]`.

TensorFlow's own profiler around steps of the compiled training function, one thread, summed over kinds of operations.
What the convolutions reach is held against the matrix product of the same run, with one thread too.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import common
import numpy as np
from speed import IMAGES, matmul

if TYPE_CHECKING:
    import keras

SHOWN = 12


def train_steps(model: keras.Model, batch: tuple[Any, Any], steps: int) -> Counter[str]:
    """Milliseconds per step of each kind of operation, from the trace that the profiler writes."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    endless = iter(tf.data.Dataset.from_tensors(batch).repeat())
    model.make_train_function()
    for _ in range(2):
        model.train_function(endless)
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        for _ in range(steps):
            model.train_function(endless)
        tf.profiler.experimental.stop()
        trace = xplane_pb2.XSpace()
        trace.ParseFromString(next(Path(folder).rglob("*.xplane.pb")).read_bytes())
    spent: Counter[str] = Counter()
    for plane in trace.planes:
        for line in plane.lines if "CPU" in plane.name else ():
            for event in line.events:
                kind = plane.event_metadata[event.metadata_id].name.partition("#")[0].partition(":")[2]
                if kind.isidentifier() and not kind.startswith("__"):  # one operation, not a function of many
                    spent[kind] += event.duration_ps / 1e9 / steps
    return spent


def main() -> None:
    """Profile the shipped recipe and write bench/results/step_profile.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    from mtl.config import params
    from mtl.data import backend

    backend.import_tensorflow()
    import tensorflow as tf

    from mtl.networks import catalog, inference
    from mtl.training import optimizers

    settings = params.read()
    recipe = backend.resolve_here(settings.recipes["compact"])
    backend.configure(settings.hardware, recipe.precision, seed=0)
    model = catalog.build(recipe, (32, 32, 3), 10, IMAGES)
    model.compile(optimizers.build(recipe, 1000), "categorical_crossentropy", metrics=["categorical_accuracy"])
    targets = np.eye(10, dtype=np.float32)[np.arange(recipe.batch_size) % 10]
    spent = train_steps(model, (tf.constant(IMAGES[: recipe.batch_size]), tf.constant(targets)), options.steps)
    total = sum(spent.values())
    rows = [{"operation": kind, "ms_per_step": ms, "share": ms / total} for kind, ms in spent.most_common(SHOWN)]
    convolutions = sum(ms for kind, ms in spent.items() if "Conv2D" in kind)
    # Forward, and back to the kernels and to the inputs: three times the multiply-adds, two operations each.
    operations = 3 * 2 * inference.multiply_adds(model) * recipe.batch_size
    figures = {
        "ms_per_step": total,
        "convolutions_share": convolutions / total,
        "convolutions_gflops": operations / convolutions / 1e6,
        "matmul_gflops": matmul("bfloat16" if recipe.precision == "mixed_bfloat16" else "float32"),
    }
    common.report("step_profile", rows, figures, common.versions("tensorflow", "keras", "numpy"))


if __name__ == "__main__":
    main()
