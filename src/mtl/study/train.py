"""Train one arrangement with one seed and judge it on the test images: `python study/train.py shared 0`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mtl import files, tracking
from mtl.config import params
from mtl.config.reading import read_as
from mtl.data import backend, store
from mtl.study import arrangements
from mtl.tasks.columns import Split
from mtl.training import checkpoint, hardware

if TYPE_CHECKING:
    from mtl.data.feeds import Feed

STUDY = Path("study")


def main(arrangement: str, seed: int) -> None:
    """Stage `train@<arrangement>-<seed>` of the study."""
    settings, study = params.read(), read_as(arrangements.Study, STUDY / "params.yaml")
    tasks = arrangements.questions()
    weights = arrangements.weights(study, list(tasks))
    outside = backend.note_settings()
    backend.import_tensorflow(study.recipe.precision)
    from mtl.data.feeds import Plan
    from mtl.networks import catalog, inference
    from mtl.tasks.targets import Head, columns
    from mtl.tasks.weights import of_classes
    from mtl.training import fitting

    name = f"{arrangement}-{seed}"
    run_of_stage = tracking.stage_run("study", settings, f"train@{name}", STUDY)
    with checkpoint.exclusive(f"study-{name}") as folder, run_of_stage as run:
        earlier = checkpoint.finished(folder)
        run.log_dataset(store.read_dataset())
        run.log_tags(outside)
        run.log_params({"arrangement": arrangement, "seed": seed, "hardware": settings.hardware.model_dump()})
        run.log_params({"loss_weights": weights, "recipe": study.recipe.model_dump()})
        answers: dict[str, np.ndarray] = {}
        times: list[np.ndarray] = []
        spent: dict[str, int] = {"multiply_adds": 0, "parameters": 0, "images_seen": 0}
        for network in arrangements.networks(arrangement, tasks, study.recipe.epochs):
            recipe = arrangements.recipe(study, network, tasks)
            specs = [tasks[task].task for task in network.tasks]
            place = "study/params.yaml: recipe.class_weight"
            heads = [
                Head(len(spec.names), weights[spec.name], of_classes(recipe.class_weight, spec, place))
                for spec in specs
            ]
            joined = "-".join(network.tasks)
            train, validation = (known_to_all(split, network.tasks) for split in ("train", "validation"))
            shape = train.shape
            backend.configure(settings.hardware, recipe.precision, seed)
            with hardware.strategy(hardware.one_machine(settings.hardware, "the study")).scope():
                model = catalog.build(recipe, shape, sum(head.outputs for head in heads), train.images)
                started = clocks()
                on_epoch = partial(run.log_epoch, prefix=f"{joined}.")
                plan = Plan(recipe, seed, tuple(heads))
                _, epochs = fitting.fit(model, plan, train, validation, folder / joined, on_epoch)
            # A killed training that went on trained fewer epochs here than the recipe has.
            times.append((clocks() - started) * (recipe.epochs / epochs if epochs else np.nan))
            seen = recipe.epochs * len(train)
            spent["images_seen"] += seen
            spent["parameters"] += model.count_params()
            # Each of the two backward passes, to weights and to activations, costs as much as the forward pass.
            spent["multiply_adds"] += 3 * inference.multiply_adds(model) * seen
            probabilities = inference.predict(inference.plain(model), store.read_images("test"))
            answers |= {t: probabilities[:, part] for t, part in zip(network.tasks, columns(heads), strict=True)}

        scores = arrangements.judge(arrangements.answers(tasks, answers))
        result = STUDY / "runs" / f"{name}.json"
        files.write_json(result, {"tasks": scores, **spent})
        wall, processor = (None if np.isnan(total) else float(total) for total in sum(times, np.zeros(2)))
        if wall is None and earlier:  # it was trained to its end, and DVC did not record that
            run.log_tags({"repeats_run": earlier["run"]})
            print(f"{name}: trained before, by run {earlier['run'][:8] or '-'}; DVC did not record it: judged again")
            wall, processor = earlier["seconds"], earlier["cpu_seconds"]
        seconds = {"seconds": wall, "cpu_seconds": processor}
        files.write_json(STUDY / "runs" / f"{name}.seconds.json", seconds)
        if wall is not None and processor is not None:
            run.log_metrics({"fit_seconds": wall, "fit_cpu_seconds": processor})
        run.log_metrics({**spent, **{f"{task}.{key}": value for task in scores for key, value in scores[task].items()}})
        for task in tasks:
            answered = (
                f"accuracy {scores[task]['acc']:.4f}" if task in scores else "no answer, as no other task implies it"
            )
            print(f"{name}: {task}: {answered}")
        checkpoint.finish(folder, result, run.identity.run_id or "", STUDY / "dvc.lock", **seconds)


def known_to_all(split: Split, tasks: Sequence[str]) -> Feed:
    """The feed of the images of a split whose labels are known for each of the tasks, (N, T)."""
    from mtl.data import streams

    images, targets = store.read_images(split), [store.read_targets(task, split) for task in tasks]
    known = np.all([part.any_known for part in targets], axis=0).nonzero()[0]
    return streams.feed(images[known], np.stack([part.labels[known] for part in targets], axis=1))


def clocks() -> np.ndarray:
    """Seconds of the clock on the wall and of processor time, which leaves out what other processes do."""
    return np.array([time.perf_counter(), time.process_time()])
