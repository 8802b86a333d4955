"""Processor seconds until the published script's best average accuracy: `python bench/time_to_accuracy.py`.

For each seed both models are trained at once, one thread each, on the images of data/raw (run the DAG first), and the
test images are looked at after each epoch. The published recipe's curves are those in bench/reference; its cost is the
number of their epochs times an epoch, measured in the same run on the same machine. `--epochs 1` measures `compact`
with its whole schedule in one epoch: what it costs a person who wants no more than the published accuracy.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
from pathlib import Path
from typing import Any

import common
import numpy as np

from mtl import evaluation, params, scores, store

TASKS = ("model1", "model2")
RECIPES = {"model1": ("article_multiclass", 10), "model2": ("article_binary", 2)}
STEPS, PUBLISHED_IMAGES = 24, 50_000


def published() -> tuple[float, float]:
    """The mean of both models' best test accuracies, and the processor seconds to reach them here."""
    accuracy, seconds = [], 0.0
    for task in TASKS:
        rows = list(csv.DictReader((Path(__file__).parent / "reference" / f"published_{task}.csv").open()))
        best = max(rows, key=lambda row: float(row["test_acc"]))
        name, classes = RECIPES[task]
        rate = common.answer(common.child("bench/speed.py", "script_cpu", name, str(classes), str(STEPS)))["value"]
        accuracy.append(float(best["test_acc"]))
        seconds += int(best["epoch"]) * PUBLISHED_IMAGES / rate
    return statistics.mean(accuracy), seconds


def train(seed: int, epochs: int) -> dict[str, Any]:
    """Both models at once: their rows, final accuracies and what model1 implies for model2."""
    with tempfile.TemporaryDirectory() as folder:
        files = {task: str(Path(folder) / f"{task}.npy") for task in TASKS}
        children = {
            task: common.child("bench/train_one.py", task, str(seed), str(epochs), files[task]) for task in TASKS
        }
        answers = {task: common.answer(child) for task, child in children.items()}
        probabilities = np.load(files["model1"], allow_pickle=False)
    model1, model2 = (store.read_classes(task) for task in TASKS)
    groups = np.array([model2["classes"].index(model2["of_class"][name]) for name in model1["classes"]])
    derived = evaluation.group_sums(probabilities, groups)
    answers["derived_acc"] = scores.accuracy(derived, store.read_labels("model2", "test"))
    return answers


def cost(answers: dict[str, Any], target: float) -> float:
    """Processor seconds of both models until their mean test accuracy first reaches `target`; inf if it never does."""
    for one, two in zip(answers["model1"]["rows"], answers["model2"]["rows"], strict=False):
        if (one["test_acc"] + two["test_acc"]) / 2 >= target:
            return one["cpu_seconds"] + two["cpu_seconds"]
    return float("inf")


def main() -> None:
    """Measure the published epoch, train the seeds, and write bench/results/time_to_accuracy.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=0, help="of compact; 0: as params.yaml says")
    options = parser.parse_args()
    dataset = store.read_dataset()
    target, published_seconds = published()
    print(f"{dataset.name}; target {target:.4f}, published: {published_seconds:.0f} processor seconds", flush=True)
    rows = []
    for seed in options.seeds:
        answers = train(seed, options.epochs)
        row = {
            "seed": seed,
            "model1_acc": answers["model1"]["test_acc"],
            "model2_acc": answers["model2"]["test_acc"],
            "derived_acc": answers["derived_acc"],
            "cpu_to_target": cost(answers, target),
            "fit_seconds": max(answers[task]["rows"][-1]["seconds"] for task in TASKS),
        }
        rows.append(row)
        print(row, flush=True)
    mean = {key: statistics.mean(row[key] for row in rows) for key in rows[0]}
    figures = {
        "model1_acc": mean["model1_acc"],
        "model2_acc": mean["model2_acc"],
        "model2_gain": mean["model2_acc"] - mean["derived_acc"],
        "cpu_ratio": mean["cpu_to_target"] / published_seconds,
    }
    if len(rows) > 1:
        figures |= {f"{key}_sd": statistics.stdev(row[key] for row in rows) for key in ("model1_acc", "model2_acc")}
    common.report(
        "time_to_accuracy" if not options.epochs else f"time_to_accuracy_{options.epochs}",
        rows,
        figures,
        common.versions("tensorflow", "keras", "numpy"),
        data=dataset.name,
        epochs=options.epochs or params.read().recipe("model1").epochs,
        target=target,
        published_cpu_seconds=published_seconds,
    )


if __name__ == "__main__":
    main()
