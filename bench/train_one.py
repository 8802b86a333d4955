"""Train one task with the images of data/raw and look at the test images after each epoch.

Prints the history as JSON, with the processor seconds of `fit` so far, the accuracy on the test images and, of a recipe
that calibrates, accuracy and cross-fitted NLL on the validation images. Saves the answers to both to a file: with
mirror averaging where the recipe has it, not calibrated. A benchmark may look at the test images; no choice is made on
them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from mtl.config import params
from mtl.config.recipes import Recipe
from mtl.data import backend, store
from mtl.tasks import calibration, heads, scores
from mtl.tasks.answers import Answers


class Stopped(Exception):
    """Enough epochs were trained."""


def main() -> None:
    """Train on the images that are not held out, as the stage does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("seed", type=int)
    parser.add_argument("file", help="where the answers go, .npz of `validation` and `test`")
    parser.add_argument("--recipe", help="a recipe for the task's own")
    parser.add_argument("--change", type=json.loads, default={}, help="JSON of what to change in the recipe")
    parser.add_argument("--threads", type=int, help="for those of params.yaml")
    parser.add_argument("--stop", type=int, help="end after so many epochs of the schedule")
    parser.add_argument("--images", type=int, help="train on the first so many of a shuffled order")
    options = parser.parse_args()
    settings = params.read()
    hardware = settings.hardware.model_copy(update={"threads": options.threads or settings.hardware.threads})
    named = settings.recipes[options.recipe] if options.recipe else settings.recipe(options.task)
    recipe = Recipe.model_validate(named.model_dump() | options.change)
    backend.import_tensorflow(recipe.precision)
    recipe = backend.resolve_here(recipe)
    from mtl.data.feeds import Arrays, Plan
    from mtl.networks import catalog, inference
    from mtl.training import fitting

    backend.configure(hardware, recipe.precision, options.seed)
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
        if row["epoch"] == options.stop:
            raise Stopped

    with tempfile.TemporaryDirectory() as folder, suppress(Stopped):
        fitting.fit(model, Plan(recipe, options.seed, (head,)), *feeds, Path(folder), note, verbose=0)
    finished = inference.finish(inference.plain(model), spec, recipe.mirror)
    answers = {"test": inference.predict(finished, test.images)}
    answers["validation"] = inference.predict(finished, store.read_images("validation"))
    with Path(options.file).open("wb") as file:  # to which numpy adds no suffix
        np.savez(file, **answers)
    told = {"test_acc": scores.accuracy(answers["test"], test.labels)}
    held_out = store.read_targets(options.task, "validation")
    if len(held_out.labels) and recipe.calibrate == "temperature":
        validation = Answers(spec, held_out.labels, answers["validation"], known=held_out.known).judged()
        told["validation_acc"] = scores.accuracy(validation.outputs, validation.labels)
        told["validation_nll"] = scores.nll(calibration.cross_fitted(validation).outputs, validation.labels)
    print(json.dumps({"rows": rows, **told}))


if __name__ == "__main__":
    main()
