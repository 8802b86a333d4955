"""Two workers of one core over one process of two threads: `python bench/two_workers.py [--rounds 3] [--steps 3]`.

Both train `compact` in float32 (bfloat16 is slow on processors without it) with the same global batch, on generated
pixels, in turn; the workers are processes on loopback, each on a core of its own. bench/input.py calls `compare`.
A single training runs as `two_workers.py fit <threads> <steps>`, with TF_CONFIG for a worker.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import numpy as np

SCRIPT = "bench/two_workers.py"


def fit(threads: int, steps: int) -> float:
    """Images per second of `training.fit`, of all workers: three epochs of `steps`, without the first (compilation)."""
    from mtl.config import params
    from mtl.data import backend
    from mtl.training import hardware
    from mtl.training.multiworker import cluster

    used = params.Hardware(
        threads=threads, strategy="multi_worker" if os.environ.get(cluster.VARIABLE) else "one_device"
    )
    if len(cluster.of(used).workers) > 1:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[cluster.of(used).index % len(cores)]})
    backend.import_tensorflow("float32")
    from mtl.data.feeds import Arrays, Plan
    from mtl.networks import catalog
    from mtl.training import fitting

    recipe = (
        params.read()
        .recipes["compact"]
        .model_copy(update={"epochs": 3, "steps_per_epoch": steps, "precision": "float32"})
    )
    backend.configure(used, recipe.precision, seed=0)
    images = np.random.default_rng(0).integers(0, 256, size=(4096, 32, 32, 3)).astype(np.uint8)
    train = Arrays(images, (np.arange(len(images)) % 10).astype(np.uint8))
    none = Arrays(images[:0], np.zeros(0, np.uint8))
    with hardware.strategy(used).scope():
        model = catalog.build(recipe, (32, 32, 3), 10, images)
    times: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        fitting.fit(model, Plan(recipe, 0), train, none, Path(folder), lambda row: times.append(time.perf_counter()), 0)
    return 2 * steps * recipe.batch_size / (times[2] - times[0])


def one(steps: int) -> float:
    """Images per second of one process of two threads."""
    return common.answer(common.child(SCRIPT, "fit", "2", str(steps), TF_CONFIG=""))["value"]


def two(steps: int) -> float:
    """Images per second of two workers of one core each, together."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    children = []
    for index in range(2):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        children.append(common.child(SCRIPT, "fit", "1", str(steps), TF_CONFIG=json.dumps(config)))
    return min(common.answer(child)["value"] for child in children)


def compare(rounds: int, steps: int = 3) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """The figure `two_workers_over_one`, the median over the rounds of each, and a row for each contender."""
    contenders = {"one process of two threads": one, "two workers of one core": two}
    measured: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            measured[name].append(run(steps))
            print(f"{name}: {measured[name][-1]:.1f} images per second", flush=True)
    rows = [
        {"contender": name, "median": statistics.median(values), "minimum": min(values), "maximum": max(values)}
        for name, values in measured.items()
    ]
    return {"two_workers_over_one": rows[1]["median"] / rows[0]["median"]}, rows


def main() -> None:
    """Run the rounds and write bench/results/two_workers.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="of an epoch")
    options = parser.parse_args()
    figures, rows = compare(options.rounds, options.steps)
    used = common.versions("tensorflow", "keras", "numpy")
    common.report("two_workers", rows, figures, used, unit="images per second", rounds=options.rounds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["fit"]:
        print(json.dumps({"value": fit(int(sys.argv[2]), int(sys.argv[3]))}))
    else:
        main()
