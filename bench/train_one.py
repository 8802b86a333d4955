"""Train one task with the images of data/raw and look at the test images after each epoch.

Prints the history as JSON, with the processor seconds of `fit` so far, and saves the answers to the validation and the
test images to a file: with mirror averaging where the recipe has it, not calibrated. A benchmark may look at the test
images; no choice is made on them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from mtl.config import params
from mtl.config.recipes import Recipe
from mtl.data import backend, store
from mtl.tasks import heads, scores


def main() -> None:
    """Train on the images that are not held out, as the stage does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("seed", type=int)
    parser.add_argument("file", help="where the answers go, .npz of `validation` and `test`")
    parser.add_argument("--recipe", help="a recipe for the task's own")
    parser.add_argument("--change", type=json.loads, default={}, help="JSON of what to change in the recipe")
    parser.add_argument("--images", type=int, help="train on the first so many of a shuffled order")
    options = parser.parse_args()
    settings = params.read()
    named = settings.recipes[options.recipe] if options.recipe else settings.recipe(options.task)
    recipe = Recipe.model_validate(named.model_dump() | options.change)
    backend.import_tensorflow(recipe.precision)
    recipe = backend.resolve_here(recipe)
    from mtl.data.feeds import Arrays, Plan
    from mtl.networks import catalog, inference
    from mtl.training import fitting

    backend.configure(settings.hardware, recipe.precision, options.seed)
    train, test = store.read_examples("train", options.task), store.read_examples("test", options.task)
    if options.images:
        train = train.at(np.random.default_rng(options.seed).permutation(len(train.images))[: options.images])
    spec = store.read_task(options.task)
    head = heads.of_task(settings, spec, train.targets, test.targets)
    model = catalog.build(recipe, train.images.shape[1:], len(spec.names), train.images, [spec.kind])
    feeds = [Arrays(np.asarray(part.images), heads.carried(spec, part.targets, head)) for part in (train, test)]
    started, wall, rows = time.process_time(), time.perf_counter(), []

    def note(row: fitting.Row) -> None:
        spent = {"cpu_seconds": time.process_time() - started, "seconds": time.perf_counter() - wall}
        rows.append({"epoch": row["epoch"], "test_acc": row["val_acc"], **spent})

    with tempfile.TemporaryDirectory() as folder:
        fitting.fit(model, Plan(recipe, options.seed, (head,)), *feeds, Path(folder), note, verbose=0)
    finished = inference.finish(inference.plain(model), spec, recipe.mirror)
    answers = {"test": inference.predict(finished, test.images)}
    answers["validation"] = inference.predict(finished, store.read_images("validation"))
    with Path(options.file).open("wb") as file:  # to which numpy adds no suffix
        np.savez(file, **answers)
    labels = {"test": test.labels, "validation": store.read_targets(options.task, "validation").labels}
    told = {f"{split}_acc": scores.accuracy(answers[split], labels[split]) for split in labels if len(labels[split])}
    print(json.dumps({"rows": rows, **told}))


if __name__ == "__main__":
    main()
