"""Train one task with the images of data/raw and look at the test images after each epoch.

`python bench/train_one.py <task> <seed> <epochs> <file>` prints the history as JSON, with the processor seconds of
`fit` so far, and saves the test probabilities to <file>. A benchmark may look at the test images; no choice is made on
them.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from mtl import hardware, params, scores, store


def main(task: str, seed: int, epochs: int, file: str) -> None:
    """Train on the images that are not held out, as the stage does."""
    hardware.import_tensorflow()
    from mtl import networks, training

    settings = params.read()
    recipe = settings.recipe(task).model_copy(update={"epochs": epochs or settings.recipe(task).epochs})
    hardware.configure(settings.hardware, recipe.precision, seed)
    splits = store.read_splits(task)
    train, test = splits["train"], splits["test"]
    classes = store.read_classes(task)["classes"]
    model = networks.build(recipe, train[0].shape[1:], len(classes), train[0])
    started, wall, rows = time.process_time(), time.perf_counter(), []

    def note(row: training.Row) -> None:
        spent = {"cpu_seconds": time.process_time() - started, "seconds": time.perf_counter() - wall}
        rows.append({"epoch": row["epoch"], "test_acc": row["val_acc"], **spent})

    with tempfile.TemporaryDirectory() as folder:
        training.fit(model, recipe, seed, train, test, Path(folder), note, verbose=0)
    probabilities = networks.predict(model, test[0])
    np.save(file, probabilities)
    print(json.dumps({"rows": rows, "test_acc": scores.accuracy(probabilities, test[1])}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
