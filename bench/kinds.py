"""Values against what people do without this project: `python bench/kinds.py FOLDER`.

FOLDER holds `omniglot` as examples/omniglot/prepare.py makes it. For each seed the example's tasks of the kind `value`
are trained by the stage `train` with the example's own params.yaml, and by bench/plain_keras.py; ridge regression on
the pixels, its penalty chosen on the validation images, is a third contender. All answer the same test images. The
score is R², of a task with `transform: log` that of the logarithm. A difference is paired: over 2,000 bootstrap samples
of the test images, the scores being means over the seeds.

Rows are written as they come, to bench/results/kinds.json; a bench that was stopped goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import numpy as np
from ruamel.yaml import YAML
from tables import compare, project, stage

EXAMPLE = "omniglot"
PENALTIES = (1e2, 1e3, 1e4, 1e5)


def ridge(task: str) -> np.ndarray:
    """The answers of ridge regression on the pixels in the unit, (N,)."""
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from mtl.data import store
    from mtl.tasks.kinds import value

    spec = store.read_task(task)
    train, validation, test = (store.read_examples(split, task) for split in ("train", "validation", "test"))

    def flat(part: store.Examples) -> np.ndarray:
        return np.asarray(part.images)[..., 0].reshape(len(part.images), -1).astype(np.float32)

    best, answers, right = np.inf, np.empty(0), value.standardised(spec, validation.labels)
    for penalty in PENALTIES:
        model = make_pipeline(StandardScaler(), Ridge(penalty))
        model.fit(flat(train), value.standardised(spec, train.labels))
        error = float(((model.predict(flat(validation)) - right) ** 2).mean())
        if error < best:
            best, answers = error, value.in_unit(spec, model.predict(flat(test)))
    return answers


def one(folder: Path, table: Path, task: str, seed: int) -> dict[str, Any]:
    """Train the contenders for one task and seed; what each says of each test image, in the unit."""
    from mtl.config import params
    from mtl.data import paths, store
    from mtl.networks import inference, saving

    yaml = YAML()
    tree = yaml.load(folder / "params.yaml")
    tree["seed"] = seed
    yaml.dump(tree, folder / "params.yaml")
    before = Path.cwd()
    os.chdir(folder)
    try:
        recipe, spec, shape = params.read().recipe(task), store.read_task(task), store.read_dataset().shape
        test, file = store.read_examples("test", task), str(folder / "plain.npy")
        widths = ",".join(map(str, recipe.options["widths"]))
        kind = "log" if spec.transform == "log" else "value"
        plain = ("bench/plain_keras.py", table, spec.columns[0], shape[0], widths, recipe.epochs, seed, file, kind)
        process = common.child(*map(str, plain), cwd=folder)
        stage("train", folder, task)
        parameters = common.answer(process)
        own = inference.predict(saving.read(paths.model_path(task)), test.images)[:, 0]
        answers = {"own": own, "plain": np.load(file, allow_pickle=False)[:, 0]}
        if seed == 0:
            answers["ridge"] = ridge(task)
        labels = np.log(test.labels) if spec.transform == "log" else test.labels
        row: dict[str, Any] = {"task": task, "seed": seed, "parameters_plain": parameters, "labels": labels.tolist()}
        for name, numbers in answers.items():
            row[name] = (np.log(np.maximum(numbers, 1e-6)) if spec.transform == "log" else numbers).tolist()
        return row
    finally:
        os.chdir(before)


def score(rows: list[dict[str, Any]], name: str, images: np.ndarray) -> float:
    """The mean R² of a contender over the seeds of one task, on the test images at the indices `images`."""
    labels = np.array(rows[0]["labels"])[images]
    spread = ((labels - labels.mean()) ** 2).sum()
    having = [np.array(row[name])[images] for row in rows if name in row]
    return float(np.mean([1 - ((answers - labels) ** 2).sum() / spread for answers in having]))


def measure(data: Path, seeds: list[int], rows: list[dict[str, Any]], note: Callable[[], None]) -> None:
    """Add a row per task and seed with the answers of each contender."""
    from mtl.config import params

    tasks = params.read(common.ROOT / "examples" / EXAMPLE / "params.yaml").tasks
    wanted = [(name, seed) for seed in seeds for name, task in tasks.items() if task.kind == "value"]
    done = {(row["task"], row["seed"]) for row in rows}
    with project(EXAMPLE, data / EXAMPLE) as folder:
        for name in ("load_data", "derive_labels"):
            stage(name, folder)
        for task, seed in wanted:
            if (task, seed) not in done:
                rows.append(one(folder, next((data / EXAMPLE).glob("*.csv")), task, seed))
                note()


def main() -> None:
    """Train what is not trained yet, compare, and write bench/results/kinds.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    kept = common.RESULTS / "kinds.rows.json"
    rows: list[dict[str, Any]] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else []

    def note() -> None:
        kept.write_text(json.dumps(rows), encoding="utf-8")
        print({key: value for key, value in rows[-1].items() if not isinstance(value, list)}, flush=True)

    measure(options.folder.absolute(), options.seeds, rows, note)
    table = compare(rows, score, lambda task: "r2", "ridge")
    figures = {"clearly_better": sum(min(line["over_ridge_low"], line["over_plain_low"]) > 0 for line in table)}
    common.report("kinds", table, figures, common.versions("tensorflow", "keras", "scikit-learn"))
    kept.unlink()


if __name__ == "__main__":
    main()
