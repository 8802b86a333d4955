"""Accuracy of the shipped recipes, and processor seconds to the published one: `python bench/time_to_accuracy.py`.

On the images of data/raw (run the stages load_data and derive_labels first). For each seed both models are trained at
once, one thread each. They answer the validation and the test images, all of which were held out of the training:
temperatures and the weights of the combined answer are fitted on one half of the validation images and judged on the
other, and those of all validation images are judged on the test images. `--recipe NAME` trains model1 by another
recipe, then model2 by its own, each with two threads, and writes bench/results/<NAME>.json.

`--published` measures the time to the published script's best mean accuracy instead: the recipes as shipped, the test
images being looked at after each epoch, and `compact` cut down as far as that accuracy allows (SHORT). The published
recipe's curves are those in bench/reference, on CIFAR-10's JPEG copy, and so must data/raw be; its cost is the number
of their epochs times an epoch, measured in the same run on the same machine, beside each seed.

Rows are written as they come; a bench that was stopped goes on where it stopped.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import common
import numpy as np

from mtl.config import params
from mtl.data import store
from mtl.tasks import calibration, combining, relations, scores
from mtl.tasks import statistics as of_answers
from mtl.tasks.answers import Answers
from mtl.tasks.kinds import classes
from mtl.tasks.relations import Relation

TASKS = ("model1", "model2")
NAMES = {"model1": "model1", "model2": "own"}  # of each model's own answers in a row
RECIPES = {"model1": ("article_multiclass", 10), "model2": ("article_binary", 2)}
STEPS, PUBLISHED_IMAGES = 24, 50_000
# One pass over 12,000 images. Chosen on the validation images, for the least cost with some margin.
SHORT_CHANGE = {"epochs": 1, "batch_size": 128, "options": {"widths": [32, 64, 128], "identity": True}}
SHORT = ("--recipe", "compact", "--images", "12000", "--change", json.dumps(SHORT_CHANGE))
LOOKED_AT = 3  # epochs of the shipped recipes, in which that accuracy is passed
SAMPLES = 2_000  # of the bootstrap over images


def train(seed: int, *options: str) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """Train both models at once: what each prints, and its answers to the validation and the test images."""
    with tempfile.TemporaryDirectory() as folder:
        files = {task: str(Path(folder) / f"{task}.npz") for task in TASKS}
        children = {task: common.child("bench/train_one.py", task, str(seed), files[task], *options) for task in TASKS}
        told = {task: common.answer(child) for task, child in children.items()}
        return told, {task: dict(np.load(file, allow_pickle=False)) for task, file in files.items()}


def train_in_turn(seed: int, recipe: str) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """`train` of model1 by another recipe, and then of model2 by its own, each with two threads."""
    told, outputs = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for task, options in (("model1", ("--recipe", recipe)), ("model2", ())):
            file = str(Path(folder) / f"{task}.npz")
            told[task] = common.answer(
                common.child("bench/train_one.py", task, str(seed), file, "--threads", "2", *options)
            )
            outputs[task] = dict(np.load(file, allow_pickle=False))
    return told, outputs


def relation() -> Relation:
    """What the classes of model1 imply for model2."""
    specs = {task: store.read_task(task) for task in TASKS}
    implied = relations.learn(specs, {task: store.read_targets(task, "train") for task in TASKS}).of(*TASKS)
    assert implied.functional, "model1 does not imply model2 in params.yaml"
    return implied


# --- accuracy on the images that were held out


def judged(fitted: Mapping[str, Answers], other: Mapping[str, Answers], implied: Relation) -> dict[str, np.ndarray]:
    """Calibrated and combined answers to `other` examples, with the temperatures and weights that `fitted` ones give.

    `model1`, and of model2 `own`, `derived` and `combined`: probabilities (N, K).
    """
    temperatures = {task: calibration.temperature(fitted[task]) for task in TASKS}

    def tempered(answers: Mapping[str, Answers]) -> tuple[dict[str, Answers], np.ndarray]:
        of = {task: calibration.tempered(answers[task], temperatures[task]) for task in TASKS}
        return of, relations.derive(implied, of["model1"].outputs, of["model2"].task)

    (of_fitted, derived_fitted), (of_other, derived) = tempered(fitted), tempered(other)
    weights = combining.fit_weights(of_fitted["model2"], derived_fitted)
    own = of_other["model2"].outputs
    combined = combining.combine(of_other["model2"].task, own, derived, weights)
    return {"model1": of_other["model1"].outputs, "own": own, "derived": derived, "combined": combined}


def held_out(outputs: Mapping[str, Mapping[str, np.ndarray]], implied: Relation) -> dict[str, Any]:
    """The row of a seed: for each answer to each validation and test image its NLL, its confidence and if it is right.

    The validation images, cross-fitted, come first.
    """
    of: dict[str, dict[str, Answers]] = {}
    for split in ("validation", "test"):
        of[split] = {
            task: Answers(store.read_task(task), store.read_targets(task, split).labels, outputs[task][split])
            for task in TASKS
        }
    count = len(of["validation"]["model1"].labels)
    halves = [np.arange(start, count, 2) for start in (0, 1)]
    of_halves = [{task: of["validation"][task].at(half) for task in TASKS} for half in halves]
    parts = [
        judged(of_halves[1], of_halves[0], implied),
        judged(of_halves[0], of_halves[1], implied),
        judged(of["validation"], of["test"], implied),
    ]
    order = np.argsort(np.concatenate([*halves, count + np.arange(len(of["test"]["model1"].labels))]))
    row: dict[str, Any] = {"validation": count}
    for name in parts[0]:
        task = "model1" if name == "model1" else "model2"
        labels = np.concatenate([of[split][task].labels for split in of])
        probabilities = np.concatenate([part[name] for part in parts])[order]
        row[f"{name}_nll"] = (-np.log(probabilities[np.arange(len(labels)), labels].clip(scores.EPSILON))).tolist()
        row[f"{name}_right"] = (probabilities.argmax(axis=1) == labels).tolist()
        row[f"{name}_confidence"] = classes.confidence(probabilities).tolist()
    return row


def interval(differences: np.ndarray) -> tuple[float, float]:
    """The 95 % bootstrap interval over images of the mean of (seeds, images)."""
    of_images, rng = differences.mean(axis=0), np.random.default_rng(0)
    means = [of_images[rng.integers(len(of_images), size=len(of_images))].mean() for _ in range(SAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def figures_of(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The figures over the seeds."""
    right, nll, confidence = (
        {name: np.array([row[f"{name}_{what}"] for row in rows]) for name in ("model1", "own", "derived", "combined")}
        for what in ("right", "nll", "confidence")
    )
    accuracy = {name: float(of.mean()) for name, of in right.items()}
    held = rows[0]["validation"]
    best = "own" if nll["own"].mean() < nll["derived"].mean() else "derived"
    gain, gain_acc = nll[best] - nll["combined"], right["combined"].astype(float) - right[best]
    of_two = [
        of_answers.calibration_error(of_answers.reliability(confidence[name][seed], right[name][seed]))
        for name in NAMES.values()
        for seed in range(len(rows))
    ]
    low, high = interval(gain)
    acc_low, acc_high = interval(gain_acc)
    figures = {
        "model1_acc": accuracy["model1"],
        "model1_acc_validation": float(right["model1"][:, :held].mean()),
        "model1_acc_test": float(right["model1"][:, held:].mean()),
        "model2_acc": accuracy["own"],
        "model2_derived": accuracy["derived"],
        "model2_combined": accuracy["combined"],
        "model2_best": max(accuracy[name] for name in ("own", "derived", "combined")),
        "combined_nll_gain": float(gain.mean()),
        "combined_nll_gain_low": low,
        "combined_nll_gain_high": high,
        "combined_acc_gain": float(gain_acc.mean()),
        "combined_acc_gain_low": acc_low,
        "combined_acc_gain_high": acc_high,
        "ece_max": max(of_two),
    }
    if len(rows) > 1:
        figures |= {f"{task}_acc_sd": float(right[name].mean(axis=1).std(ddof=1)) for task, name in NAMES.items()}
    return figures


def accuracy(name: str, recipe: str | None, seeds: list[int]) -> None:
    """Train the seeds that have no row yet, and write the figures."""
    implied = relation()

    def row(seed: int) -> dict[str, Any]:
        told, outputs = train(seed) if recipe is None else train_in_turn(seed, recipe)
        spent = {
            f"{what}_{task}": told[task]["rows"][-1][key]
            for what, key in (("fit_seconds", "seconds"), ("cpu_seconds", "cpu_seconds"))
            for task in TASKS
        }
        return {"seed": seed, **spent, **held_out(outputs, implied)}

    rows = resumed(name, seeds, row)
    figures = figures_of(rows)
    if recipe is not None:
        figures["minutes"] = max(sum(row[f"fit_seconds_{task}"] for task in TASKS) for row in rows) / 60
    report(name, rows, figures)


# --- time to the published accuracy


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


def cost(told: Mapping[str, Any], target: float) -> float:
    """Processor seconds of both models until their mean test accuracy first reaches `target`; inf if it never does."""
    for one, two in zip(told["model1"]["rows"], told["model2"]["rows"], strict=False):
        if (one["test_acc"] + two["test_acc"]) / 2 >= target:
            return one["cpu_seconds"] + two["cpu_seconds"]
    return float("inf")


def to_the_published(seeds: list[int]) -> None:
    """Train the seeds that have no row yet, and write the figures."""

    def row(seed: int) -> dict[str, Any]:
        target, seconds = published()
        (shipped, _), (short, answers) = train(seed, "--stop", str(LOOKED_AT)), train(seed, *SHORT)
        labels = {task: store.read_targets(task, "test").labels for task in TASKS}
        return {
            "seed": seed,
            "cpu_to_target": cost(shipped, target),
            # Mirror averaging comes after the epoch, and costs nothing in training.
            **{f"short_{task}_acc": scores.accuracy(answers[task]["test"], labels[task]) for task in TASKS},
            "short_cpu": sum(short[task]["rows"][-1]["cpu_seconds"] for task in TASKS),
            "published_cpu_to_target": seconds,
            "target": target,
        }

    rows = resumed("time_to_published", seeds, row)
    mean = {key: statistics.mean(row[key] for row in rows) for key in rows[0]}
    reached = all(row["short_model1_acc"] + row["short_model2_acc"] >= 2 * row["target"] for row in rows)
    figures = {
        "cpu_ratio": mean["cpu_to_target"] / mean["published_cpu_to_target"],
        "cpu_ratio_short": mean["short_cpu"] / mean["published_cpu_to_target"] if reached else float("inf"),
    }
    report("time_to_published", rows, figures)


def resumed(name: str, seeds: list[int], row: Any) -> list[dict[str, Any]]:
    """The rows of all seeds; those of an earlier call on the same data and parameters are kept."""
    kept = common.RESULTS / f"{name}.rows.json"
    key = {"data": store.read_dataset().name, "recipes": params.read().model_dump(mode="json")["recipes"]}
    before = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    rows = before["rows"] if before.get("key") == key else []
    for seed in seeds:
        if seed not in [done["seed"] for done in rows]:
            rows.append(row(seed))
            kept.write_text(json.dumps({"key": key, "rows": rows}), encoding="utf-8")
            print({key: value for key, value in rows[-1].items() if not isinstance(value, list)}, flush=True)
    return [done for done in rows if done["seed"] in seeds]


def report(name: str, rows: list[dict[str, Any]], figures: dict[str, float]) -> None:
    """Write bench/results/<name>.json, without what is said of each image."""
    short = [{key: value for key, value in row.items() if not isinstance(value, list)} for row in rows]
    data = store.read_dataset().name
    common.report(name, short, figures, common.versions("tensorflow", "keras", "numpy"), data=data)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--recipe", help="trains model1 by this recipe, and two threads")
    parser.add_argument("--published", action="store_true", help="the time to the published accuracy")
    options = parser.parse_args()
    if options.published:
        to_the_published(options.seeds)
    else:
        accuracy(options.recipe or "time_to_accuracy", options.recipe, options.seeds)


if __name__ == "__main__":
    main()
