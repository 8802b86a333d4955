"""One contender of bench/input.py, in a process of its own; prints JSON.

`python bench/feeding.py speed <arrays|records|cached> <shards>`: images per second of training the recipe `compact` on
the train images of a folder of shards, read into arrays first, streamed, or as `data.cache` has it, with one thread; in
float32 where the processor has no bfloat16, as `make run` has it.
`python bench/feeding.py memory <shards> <repeated>`: peak memory in MiB of all that the stages do with images in
shards, each taken `repeated` times: labels read, a pass trained, the test images judged, all of it streamed.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from mtl.config import params
from mtl.config.recipes import Augmentation, Recipe, Sgd
from mtl.data import backend, shards
from mtl.sources import tfrecord
from mtl.sources.loaded import CLASS

STEPS, EPOCHS = 3, 3


def read(folder: str, split: str, repeated: int = 1) -> tuple[shards.ShardedImages, np.ndarray]:
    """The images of a split, of which none may be held in memory, and their labels."""
    found = tfrecord.load(params.Data(source="tfrecord", path=folder, validation=0))
    parts = found.manifest.splits[split].shards * repeated
    counts = tuple(part.records for part in parts)
    images = shards.ShardedImages(
        files=tuple(str(Path(folder, part.file)) for part in parts),
        counts=counts,
        index=np.arange(sum(counts)),
        side=found.shape[:2],
        size=None,
        sha256=tuple(part.sha256 for part in parts),
        cache=0,
        mean_bytes=sum(part.bytes for part in parts) / sum(counts),
    )
    classes = found.columns[split][CLASS].to_numpy(zero_copy_only=False)
    return images, np.tile(np.unique(classes, return_inverse=True)[1].astype(np.uint8), repeated)


def speed(kind: str, folder: str) -> dict[str, float]:
    """Epochs of STEPS steps, the first (compilation, and the first reading) left out."""
    from mtl.data import streams
    from mtl.data.feeds import Arrays, Plan
    from mtl.networks import catalog
    from mtl.training import fitting

    settings = params.read()
    shorter = {"epochs": EPOCHS, "steps_per_epoch": STEPS}
    recipe = backend.resolve_here(settings.recipes["compact"].model_copy(update=shorter))
    backend.configure(settings.hardware, recipe.precision, seed=0)
    images, labels = read(folder, "train")
    cached = replace(images, cache=settings.data.cache)
    fed = Arrays(np.asarray(images), labels) if kind == "arrays" else None
    fed = fed or streams.feed(images if kind == "records" else cached, labels)
    model = catalog.build(recipe, fed.shape, int(labels.max()) + 1, images)
    times = []
    with tempfile.TemporaryDirectory() as state:
        none = Arrays(np.empty((0, *fed.shape), np.uint8), labels[:0])
        fitting.fit(model, Plan(recipe, 0), fed, none, Path(state), lambda row: times.append(time.perf_counter()), 0)
    return {"value": (EPOCHS - 1) * STEPS * recipe.batch_size / (times[-1] - times[0])}


def memory(folder: str, repeated: str) -> dict[str, float]:
    """Peak resident memory in MiB. A tiny network: what it takes is not what is measured."""
    from mtl.data import streams
    from mtl.data.feeds import Plan
    from mtl.networks import catalog, inference
    from mtl.training import fitting

    recipe = Recipe(
        network="compact",
        options={"widths": [4]},
        optimizer=Sgd(name="sgd", learning_rate=0.01),
        augmentation=Augmentation(flip=True, translate=2),
        batch_size=512,
        epochs=1,
    )
    backend.configure(params.read().hardware, recipe.precision, seed=0)
    (train, labels), (test, _) = (read(folder, split, int(repeated)) for split in ("train", "test"))
    model = catalog.build(recipe, train.shape[1:], int(labels.max()) + 1, train)
    with tempfile.TemporaryDirectory() as state:
        fed, shown = streams.feed(train, labels), streams.feed(train[:5000], labels[:5000])
        fitting.fit(model, Plan(recipe, 0), fed, shown, Path(state), verbose=0)
    answers = inference.predict(model, test)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"value": peak, "trained": len(train), "judged": len(answers)}


if __name__ == "__main__":
    backend.import_tensorflow(None if backend.native_bfloat16() else "float32")
    print(json.dumps({"speed": speed, "memory": memory}[sys.argv[1]](*sys.argv[2:])))
