"""Processor seconds of the shipped recipes over those of the version before: `python bench/recipe_cost.py`.

On the images of data/raw. Of each recipe two epochs of IMAGES images are trained, one thread, in turn with the others;
the second one counts, and the whole training is so many times longer. Test images, mirror averaging and calibration are
left out.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import common

from mtl.config import params
from mtl.data import store

IMAGES, ROUNDS = 10_240, 3
TASKS = ("model1", "model2")
BEFORE: dict[str, Any] = {"options": {"widths": [64, 128, 256]}, "batch_size": 512, "epochs": 8}  # of both tasks


def seconds(task: str, change: dict[str, Any], images: int) -> float:
    """Processor seconds of a whole training of a task on `images` images, by its recipe with a change."""
    epochs = change.get("epochs", params.read().recipe(task).epochs)
    with tempfile.TemporaryDirectory() as folder:
        arguments = ("--images", str(IMAGES), "--change", json.dumps(change | {"epochs": 2}))
        child = common.child("bench/train_one.py", task, "0", str(Path(folder) / "answers.npz"), *arguments)
        first, second = common.answer(child)["rows"]
    return (second["cpu_seconds"] - first["cpu_seconds"]) * epochs * images / IMAGES


def main() -> None:
    """Measure, and write bench/results/recipe_cost.json."""
    dataset, rows = store.read_dataset(), []
    for number in range(ROUNDS):
        row: dict[str, Any] = {"round": number}
        for task in TASKS:
            row[f"{task}_before"] = seconds(task, BEFORE, dataset.train)
            row[f"{task}_now"] = seconds(task, {}, dataset.train)
        row["ratio"] = sum(row[f"{task}_now"] for task in TASKS) / sum(row[f"{task}_before"] for task in TASKS)
        rows.append(row)
        print(row, flush=True)
    figures = {"cpu_over_before": statistics.median(row["ratio"] for row in rows)}
    figures |= {f"{task}_cpu_seconds": statistics.median(row[f"{task}_now"] for row in rows) for task in TASKS}
    common.report("recipe_cost", rows, figures, common.versions("tensorflow", "keras"), data=dataset.name)


if __name__ == "__main__":
    main()
