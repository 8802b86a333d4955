"""Processor seconds until the published script's best average accuracy: `python bench/time_to_accuracy.py`.

For each seed both models are trained at once, one thread each, on the images of data/raw (run the DAG first), and the
test images are looked at after each epoch: `compact` as shipped, and cut down as far as the published accuracy allows
(SHORT). The published recipe's curves are those in bench/reference; its cost is the number of their epochs times an
epoch, measured in the same run on the same machine, beside each seed.
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

from mtl.config import params
from mtl.data import store
from mtl.tasks import relations, scores

TASKS = ("model1", "model2")
RECIPES = {"model1": ("article_multiclass", 10), "model2": ("article_binary", 2)}
STEPS, PUBLISHED_IMAGES = 24, 50_000
# One pass over 10,000 images: the DAG does it with `-S data.validation=40000 -S recipes.compact.epochs=1 -S
# recipes.compact.batch_size=256`. Chosen on the validation images, for the least cost with some margin.
SHORT = ("--images", "10000", "--change", '{"epochs": 1, "batch_size": 256}')


def best_published(task: str) -> dict[str, str]:
    """The row of the published script's best test accuracy."""
    rows = csv.DictReader((Path(__file__).parent / "reference" / f"published_{task}.csv").open())
    return max(rows, key=lambda row: float(row["test_acc"]))


def published() -> tuple[float, float]:
    """The mean of both models' best test accuracies, and the processor seconds to reach them here."""
    accuracy, seconds = [], 0.0
    for task in TASKS:
        best = best_published(task)
        name, classes = RECIPES[task]
        rate = common.answer(common.child("bench/speed.py", "script_cpu", name, str(classes), str(STEPS)))["value"]
        accuracy.append(float(best["test_acc"]))
        seconds += int(best["epoch"]) * PUBLISHED_IMAGES / rate
    return statistics.mean(accuracy), seconds


def train(seed: int, *options: str) -> dict[str, Any]:
    """Both models at once: their rows, final accuracies and what model1 implies for model2."""
    with tempfile.TemporaryDirectory() as folder:
        files = {task: str(Path(folder) / f"{task}.npy") for task in TASKS}
        children = {task: common.child("bench/train_one.py", task, str(seed), files[task], *options) for task in TASKS}
        answers = {task: common.answer(child) for task, child in children.items()}
        probabilities = np.load(files["model1"], allow_pickle=False)
    specs = {task: store.read_task(task) for task in TASKS}
    relation = relations.learn(specs, {task: store.read_targets(task, "train") for task in TASKS}).of(*TASKS)
    assert relation.functional, "model1 does not imply model2 in params.yaml"
    derived = relations.derive(relation, probabilities, specs["model2"])
    answers["derived_acc"] = scores.accuracy(derived, store.read_targets("model2", "test").labels)
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
    options = parser.parse_args()
    dataset, rows = store.read_dataset(), []
    for seed in options.seeds:
        target, published_seconds = published()
        shipped, short = train(seed), train(seed, *SHORT)
        row = {
            "seed": seed,
            "model1_acc": shipped["model1"]["test_acc"],
            "model2_acc": shipped["model2"]["test_acc"],
            "derived_acc": shipped["derived_acc"],
            "fit_seconds": max(shipped[task]["rows"][-1]["seconds"] for task in TASKS),
            "cpu_to_target": cost(shipped, target),
            "short_model1_acc": short["model1"]["test_acc"],
            "short_model2_acc": short["model2"]["test_acc"],
            "short_cpu_to_target": cost(short, target),
            "published_cpu_to_target": published_seconds,
        }
        rows.append(row)
        print(row, flush=True)
    mean = {key: statistics.mean(row[key] for row in rows) for key in rows[0]}
    figures = {
        "model1_acc": mean["model1_acc"],
        "model2_acc": mean["model2_acc"],
        "model2_gain": mean["model2_acc"] - mean["derived_acc"],
        "cpu_ratio": mean["cpu_to_target"] / mean["published_cpu_to_target"],
        "cpu_ratio_short": mean["short_cpu_to_target"] / mean["published_cpu_to_target"],
    }
    if len(rows) > 1:
        figures |= {f"{key}_sd": statistics.stdev(row[key] for row in rows) for key in ("model1_acc", "model2_acc")}
    common.report(
        "time_to_accuracy",
        rows,
        figures,
        common.versions("tensorflow", "keras", "numpy"),
        data=dataset.name,
        epochs=params.read().recipe("model1").epochs,
        target=target,
    )


if __name__ == "__main__":
    main()
