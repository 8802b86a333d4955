"""One of the workers of tests/test_distributed.py, or the one process they are compared with: `worker.py <folder>`.

TF_CONFIG, where it is set, says which worker it is. It writes `weights.npz`, `history.json` and `model.keras` there.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
from conftest import task_spec

from mtl import errors
from mtl.config import params
from mtl.config.recipes import Recipe
from mtl.data import backend
from mtl.networks import saving
from mtl.training import hardware
from mtl.training.multiworker import cluster

SHAPE = (12, 12, 3)
RECIPE = {
    "network": "compact",
    "options": {"widths": [8, 8]},
    "optimizer": {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 0.01},
    "schedule": {"name": "one_cycle", "warmup": 0.2},
    "augmentation": {"flip": True, "translate": 2},
    "batch_size": 16,
    "epochs": 2,
    "steps_per_execution": 2,
}


def images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise around a grey that tells the two classes apart."""
    rng = np.random.default_rng(seed)
    y = (np.arange(count) % 2).astype(np.uint8)
    x = rng.integers(0, 120, size=(count, *SHAPE)) + 100 * y[:, None, None, None]
    return x.astype(np.uint8), y


def run(folder: Path, change: dict, seed: int = 0) -> None:
    """Train on 60 images, so that the last batch of an epoch is smaller; with `seed`, on others."""
    from mtl.data.feeds import Arrays, Plan
    from mtl.networks import catalog, inference
    from mtl.tracking import boards
    from mtl.training import fitting

    recipe = Recipe.model_validate_json(json.dumps(RECIPE | change), strict=True)
    strategy = "multi_worker" if os.environ.get("TF_CONFIG") else "auto"
    machine = params.Hardware(threads=1, strategy=strategy, wait_seconds=60)
    backend.configure(machine, recipe.precision, 0)
    fed, held_out = images(60, seed), images(21, seed + 1)
    chief = cluster.of(machine).chief
    with hardware.strategy(machine).scope():
        model = catalog.build(recipe, SHAPE, 2, fed[0])
    train, validation, spec = Arrays(*fed), Arrays(*held_out), task_spec("task", ("dark", "light"))
    called = boards.callbacks(recipe, spec, train, validation) if chief else []
    history, epochs = fitting.fit(
        model, Plan(recipe, 0), train, validation, folder / "checkpoint", verbose=0, callbacks=called
    )
    np.savez(folder / "weights.npz", *model.get_weights())
    saving.write(inference.plain(model), folder / "model.keras", spec)
    (folder / "history.json").write_text(json.dumps(history))
    print(f"trained {epochs} epochs")


if __name__ == "__main__":
    backend.import_tensorflow()
    errors.run(partial(run, Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])))
