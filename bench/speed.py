"""One contender of bench/training.py: train a network for some steps in this process, print images per second.

`python bench/speed.py fit <recipe> <classes> <steps> <JSON of what to change in the recipe>`: a recipe, through this
project's own `training.fit`.
`python bench/speed.py script <recipe> <classes> <steps>`: the published network in a plain `model.fit` script.
`python bench/speed.py script_cpu <recipe> <classes> <steps>`: the same per second of processor time.
`python bench/speed.py matmul <dtype>`: GFLOP/s of a 4096² product, with all threads.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mtl.config import params
from mtl.config.recipes import Recipe
from mtl.data import backend

IMAGES = np.random.default_rng(0).integers(0, 256, size=(8192, 32, 32, 3)).astype(np.uint8)


def fit(name: str, classes: int, steps: int, change: str) -> float:
    """Images per second of `training.fit`: epochs of `steps` steps, the first (compilation) left out."""
    settings = params.read()
    recipe = Recipe.model_validate(settings.recipes[name].model_dump() | json.loads(change) | {"epochs": 3})
    backend.import_tensorflow(recipe.precision)
    recipe = backend.resolve_here(recipe)
    from mtl.data.feeds import Arrays, Plan
    from mtl.networks import catalog
    from mtl.training import fitting

    count = min(len(IMAGES), steps * recipe.batch_size)
    backend.configure(settings.hardware, recipe.precision, seed=0)
    labels = (np.arange(count) % classes).astype(np.uint8)
    model = catalog.build(recipe, (32, 32, 3), classes, IMAGES)
    times = [time.perf_counter()]
    with tempfile.TemporaryDirectory() as folder:
        train, none = Arrays(IMAGES[:count], labels), Arrays(IMAGES[:0], labels[:0])
        fitting.fit(model, Plan(recipe, 0), train, none, Path(folder), lambda row: times.append(time.perf_counter()), 0)
    return 2 * count / (times[3] - times[1])


def script(name: str, classes: int, steps: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Images per second of the published network as its script trains it: float32, arrays, plain `model.fit`."""
    backend.import_tensorflow()
    import keras
    import tensorflow as tf

    from mtl.networks import catalog

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    recipe = params.read().recipes[name]
    count = steps * recipe.batch_size
    model = catalog.build(recipe, (32, 32, 3), classes, IMAGES)
    model.compile("adam", recipe.loss, metrics=["accuracy"])
    targets = np.eye(classes, dtype=np.float32)[np.arange(count) % classes]
    times = [clock()]
    tick = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: times.append(clock()))
    model.fit(IMAGES[:count], targets, batch_size=recipe.batch_size, epochs=3, callbacks=[tick], verbose=0)
    return 2 * count / (times[3] - times[1])


def script_cpu(name: str, classes: int, steps: int) -> float:
    """The same per second of processor time."""
    return script(name, classes, steps, time.process_time)


def matmul(dtype: str) -> float:
    """GFLOP/s of a product of two 4096² matrices with all threads; the best of five."""
    backend.import_tensorflow()
    import tensorflow as tf

    a = tf.cast(tf.random.normal((4096, 4096)), dtype)
    best = 0.0
    for _ in range(6):
        started = time.perf_counter()
        float(tf.matmul(a, a)[0, 0])
        best = max(best, 2 * 4096**3 / (time.perf_counter() - started) / 1e9)
    return best


if __name__ == "__main__":
    contenders = {"fit": fit, "script": script, "script_cpu": script_cpu, "matmul": matmul}
    arguments = [int(value) if value.isdigit() else value for value in sys.argv[2:]]
    print(json.dumps({"value": contenders[sys.argv[1]](*arguments)}))
