"""Tables with several columns against what people do without this project: `python bench/tables.py FOLDER`.

FOLDER holds `omniglot` and `clothing` as examples/<name>/prepare.py makes them. For each example and each seed every
task is trained by the example's own params.yaml and by bench/plain_keras.py; logistic regression on the pixels, its C
chosen on the validation images, is a third contender. All answer the same test images. Skill is 1 - nll / nll of
always answering with the frequencies of the training labels. A difference is paired: over 2,000 bootstrap samples of
the test images, the scores being means over the seeds.

Then it times `load_data` on the table against `load_data` on the same images as folders, and a training with half of
the labels missing against one on that half alone, in turn.

Rows are written as they come, to bench/results/tables.json; a bench that was stopped goes on where it stopped.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import common
import numpy as np
from ruamel.yaml import YAML

EXAMPLES = ("omniglot", "clothing")
BALANCED = "kids"  # judged by balanced accuracy: nine of ten are no kids' clothes
SAMPLES = 2000
C = (1e-3, 1e-2)


@contextmanager
def project(example: str, data: Path, **changes: Any) -> Iterator[Path]:
    """A folder in which the stages run: the example's params.yaml, `data.path` set to `data`, with `changes`."""
    yaml = YAML()
    tree = yaml.load(common.ROOT / "examples" / example / "params.yaml")
    tree["data"] |= {"path": str(data.absolute()), **changes}
    with tempfile.TemporaryDirectory() as folder:
        yaml.dump(tree, Path(folder) / "params.yaml")
        yield Path(folder)


def stage(name: str, folder: Path, *task: str) -> float:
    """Run a stage in `folder`; its seconds."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, str(common.ROOT / f"src/{name}.py"), *task], cwd=folder, check=True, capture_output=True
    )
    return time.perf_counter() - started


def logistic(folder: Path, task: str) -> np.ndarray:
    """The answers of logistic regression on the pixels, (N, K); C is the better of two on the validation images."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from mtl.data import store

    train, validation, test = (store.read_examples(split, task) for split in ("train", "validation", "test"))

    is_grey = all((np.diff(np.asarray(part.images), axis=3) == 0).all() for part in (train, validation, test))

    def flat(images: Any) -> np.ndarray:
        pixels = np.asarray(images)[..., :1] if is_grey else np.asarray(images)
        return pixels.reshape(len(images), -1).astype(np.float32)

    best, answers = np.inf, np.empty(0)
    for c in C:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=100))
        model.fit(flat(train.images), train.labels)
        loss = log_loss(validation.labels, model.predict_proba(flat(validation.images)), labels=model.classes_)
        if loss < best:
            best, answers = loss, model.predict_proba(flat(test.images))
    return answers


def train_all(
    data: Path, seeds: list[int], tasks: list[str], rows: list[dict[str, Any]], note: Callable[[], None]
) -> None:
    """Add a row per task and seed with the NLL and the answer of each contender for each test image."""
    from mtl.config import params

    for example in EXAMPLES:
        settings = params.read(common.ROOT / "examples" / example / "params.yaml")
        of_classes = [name for name, task in settings.tasks.items() if task.kind == "classes"]  # the rest: kinds.py
        wanted = [(task, seed) for seed in seeds for task in of_classes if not tasks or task in tasks]
        done = {(row["task"], row["seed"]) for row in rows if row["example"] == example}
        if set(wanted) <= done:
            continue
        with project(example, data / example) as folder:
            for name in ("load_data", "derive_labels"):
                stage(name, folder)
            table = next((data / example).glob("*.csv"))
            for task, seed in wanted:
                if (task, seed) not in done:
                    rows.append({"example": example, "task": task, "seed": seed, **one(folder, table, task, seed)})
                    note()


def one(folder: Path, table: Path, task: str, seed: int) -> dict[str, Any]:
    """Train the contenders for one task and seed, both networks at once; what each says of each test image."""
    from mtl.config import params
    from mtl.data import store
    from mtl.tasks import scores

    before = Path.cwd()
    os.chdir(folder)
    try:
        recipe, spec, shape = params.read().recipe(task), store.read_task(task), store.read_dataset().shape
        labels = store.read_examples("test", task).labels
        files = {name: str(folder / f"{name}.npy") for name in ("own", "plain")}
        widths = ",".join(map(str, recipe.options["widths"]))
        plain = ("bench/plain_keras.py", table, spec.columns[0], shape[0], widths, recipe.epochs, seed, files["plain"])
        children = [
            common.child("bench/train_one.py", task, str(seed), files["own"], cwd=folder),
            common.child(*map(str, plain), cwd=folder),
        ]
        parameters = common.answer(children[1])
        row: dict[str, Any] = {"parameters_plain": parameters, "own_test_acc": common.answer(children[0])["test_acc"]}
        own, plain_answers = (np.load(files[name], allow_pickle=False) for name in ("own", "plain"))
        answers = {"own": own["test"], "plain": plain_answers}
        if seed == 0:
            answers["logistic"] = logistic(folder, task)
        for name, probabilities in answers.items():
            row[f"{name}_nll"] = (-np.log(scores.normalise(probabilities)[np.arange(len(labels)), labels])).tolist()
            row[f"{name}_answer"] = probabilities.argmax(axis=1).tolist()
        return row | {"labels": labels.tolist(), "constant_nll": float(-np.log(spec.frequencies)[labels].mean())}
    finally:
        os.chdir(before)


def score(rows: list[dict[str, Any]], name: str, images: np.ndarray) -> float:
    """The mean score of a contender over the seeds of one task, on the test images at the indices `images`."""
    from sklearn.metrics import balanced_accuracy_score

    labels = np.array(rows[0]["labels"])[images]
    having = [row for row in rows if f"{name}_nll" in row]
    if rows[0]["task"] == BALANCED:
        scores = [balanced_accuracy_score(labels, np.array(row[f"{name}_answer"])[images]) for row in having]
    else:
        scores = [1 - np.mean(np.array(row[f"{name}_nll"])[images]) / row["constant_nll"] for row in having]
    return float(np.mean(scores))


def compare(
    rows: list[dict[str, Any]], score: Callable[..., float], name_of: Callable[[str], str], baseline: str
) -> list[dict[str, Any]]:
    """For each task the score of each contender and the paired difference of our own from the others.

    Args:
        rows: of each task and seed.
        score: of the rows of one task, a contender and the test images at some indices.
        name_of: the name of the score by task.
        baseline: the contender beside `own` and `plain`.
    """
    table = []
    for task in dict.fromkeys(row["task"] for row in rows):
        of_task = [row for row in rows if row["task"] == task]
        count = len(of_task[0]["labels"])
        rng = np.random.default_rng(0)
        samples = [rng.integers(count, size=count) for _ in range(SAMPLES)]
        own = [score(of_task, "own", sample) for sample in samples]
        line: dict[str, Any] = {"task": task, "score": name_of(task)}
        line |= {"images": count, "seeds": len(of_task), "own": score(of_task, "own", np.arange(count))}
        for name in (baseline, "plain"):
            differences = np.array(own) - [score(of_task, name, sample) for sample in samples]
            low, high = np.quantile(differences, [0.025, 0.975])
            line[name] = score(of_task, name, np.arange(count))
            line |= {f"over_{name}_low": float(low), f"over_{name}_high": float(high)}
        table.append(line)
    return table


def time_loading(data: Path, rounds: int) -> float:
    """Seconds of `load_data` on the clothing table over those on the same images as <split>/<class>/<file>, in turn."""
    with tempfile.TemporaryDirectory() as classes:
        with (data / "clothing/clothing.csv").open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                target = Path(classes, {"validation": "train"}.get(row["split"], row["split"]), row["kids"])
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(data / "clothing" / row["image"], target)
        ratios = []
        for _ in range(rounds):
            with project("clothing", data / "clothing") as table:
                of_table = stage("load_data", table)
            with project("clothing", Path(classes), source="folder", validation=0.1) as folder:
                ratios.append(of_table / stage("load_data", folder))
        return statistics.median(ratios)


def time_gaps(data: Path, rounds: int) -> float:
    """Seconds of training with every second `kids` label missing over training on the other half alone, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        places = {}
        with (data / "clothing/clothing.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for name in ("gaps", "half"):
            places[name] = Path(folder, name)
            places[name].mkdir()
            (places[name] / "images").symlink_to((data / "clothing/images").absolute())
            with (places[name] / "clothing.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                for index, row in enumerate(rows):
                    if index % 2 == 0:
                        writer.writerow(row)
                    elif name == "gaps":
                        writer.writerow(row | {"kids": ""})
        ratios = []
        with project("clothing", places["gaps"]) as gaps, project("clothing", places["half"]) as half:
            for where in (gaps, half):
                for name in ("load_data", "derive_labels"):
                    stage(name, where)
            for _ in range(rounds):
                seconds = []
                for where in (gaps, half):
                    file, change = str(where / "answers.npy"), json.dumps({"epochs": 2})
                    run = common.child("bench/train_one.py", BALANCED, "0", file, "--change", change, cwd=where)
                    seconds.append(common.answer(run)["rows"][-1]["seconds"])
                ratios.append(seconds[0] / seconds[1])
        return statistics.median(ratios)


def main() -> None:
    """Train what is not trained yet, compare, time, and write bench/results/tables.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", default=[], help="measure these anew and keep the others' results")
    parser.add_argument("--rounds", type=int, default=3, help="of the timings")
    parser.add_argument("--timings", action="store_true", help="measure the timings anew and keep all other results")
    options = parser.parse_args()
    data, kept = options.folder.absolute(), common.RESULTS / "tables.rows.json"
    rows: list[dict[str, Any]] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else []

    def note() -> None:
        kept.write_text(json.dumps(rows), encoding="utf-8")
        print({key: value for key, value in rows[-1].items() if not isinstance(value, list)}, flush=True)

    if not options.timings:
        train_all(data, options.seeds, options.tasks, rows, note)
    table = compare(rows, score, lambda task: "balanced_acc" if task == BALANCED else "skill", "logistic")
    results = common.RESULTS / "tables.json"
    keeps = options.tasks or options.timings
    earlier = json.loads(results.read_text(encoding="utf-8")) if keeps else {"rows": [], "figures": {}}
    anew = {line["task"] for line in table}
    table = [line for line in earlier["rows"] if line["task"] not in anew] + table
    figures = {
        "clearly_better": sum(min(line["over_logistic_low"], line["over_plain_low"]) > 0 for line in table),
        "clearly_worse": sum(min(line["over_logistic_high"], line["over_plain_high"]) < 0 for line in table),
    }
    if options.tasks:
        figures = earlier["figures"] | figures
    else:
        figures |= {"table_over_folder": time_loading(data, options.rounds)}
        figures |= {"gaps_over_half": time_gaps(data, options.rounds)}
    common.report("tables", table, figures, common.versions("tensorflow", "keras", "scikit-learn"))
    kept.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
