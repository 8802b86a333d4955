"""Train one arrangement with one seed and judge it on the held-out images: `python study/train.py shared 0`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mtl import evaluation, files, tracking
from mtl.config import params
from mtl.config.reading import read_as
from mtl.data import backend, store
from mtl.study import arrangements
from mtl.tasks.columns import Split
from mtl.tasks.targets import Head, Targets
from mtl.training import checkpoint, hardware

if TYPE_CHECKING:
    from mtl.data.feeds import Feed

STUDY = Path("study")
LEARNED: tuple[Split, ...] = ("train", "validation")


def main(arrangement: str, seed: int) -> None:
    """Stage `train@<arrangement>-<seed>` of the study."""
    settings, study = params.read(), read_as(arrangements.Study, STUDY / "params.yaml")
    tasks = arrangements.questions()
    weights = arrangements.weights(study, tasks)
    outside = backend.note_settings()
    backend.import_tensorflow(study.recipe.precision)
    from mtl.data.feeds import Plan
    from mtl.networks import catalog, inference
    from mtl.tasks.targets import columns
    from mtl.training import fitting

    name = f"{arrangement}-{seed}"
    run_of_stage = tracking.stage_run("study", settings, f"train@{name}", STUDY)
    with checkpoint.exclusive(f"study-{name}") as folder, run_of_stage as run:
        earlier = checkpoint.finished(folder)
        run.log_dataset(store.read_dataset())
        run.log_tags(outside)
        run.log_params({"arrangement": arrangement, "seed": seed, "hardware": settings.hardware.model_dump()})
        run.log_params({"loss_weights": weights, "recipe": study.recipe.model_dump()})
        outputs: dict[str, np.ndarray] = {}
        times: list[np.ndarray] = []
        spent: dict[str, int] = {"multiply_adds": 0, "parameters": 0, "images_seen": 0}
        for network in arrangements.networks(arrangement, tasks, study.recipe.epochs):
            recipe = arrangements.recipe(study, network, tasks, arrangement)
            specs = [tasks[task].task for task in network.tasks]
            heads, joined = arrangements.of_network(study, network, tasks), "-".join(network.tasks)
            train, validation = (feed(split, [tasks[t] for t in network.tasks], heads) for split in LEARNED)
            backend.configure(settings.hardware, recipe.precision, seed)
            with hardware.strategy(hardware.one_machine(settings.hardware, "the study")).scope():
                size, kinds_of = sum(head.outputs for head in heads), [head.kind for head in heads]
                model = catalog.build(recipe, train.shape, size, train.images, kinds_of)
                started = clocks()
                on_epoch = partial(run.log_epoch, prefix=f"{joined}.")
                plan = Plan(recipe, seed, heads)
                _, epochs = fitting.fit(model, plan, train, validation, folder / joined, on_epoch)
            # A killed training that went on trained fewer epochs here than the recipe has.
            times.append((clocks() - started) * (recipe.epochs / epochs if epochs else np.nan))
            trained_on = recipe.epochs * len(train)
            spent["images_seen"] += trained_on
            spent["parameters"] += model.count_params()
            # Each of the two backward passes, to weights and to activations, costs as much as the forward pass.
            spent["multiply_adds"] += 3 * inference.multiply_adds(model) * trained_on
            views = inference.views(inference.plain(model), recipe.mirror)
            seen = [inference.predict(views, store.read_images(split)) for split in arrangements.HELD_OUT]
            for spec, part in zip(specs, columns(heads), strict=True):
                outputs[spec.name] = inference.averaged(spec, np.concatenate(seen)[:, :, part])

        fitted = arrangements.halves(study, tasks, outputs)
        scores = arrangements.judge(arrangements.answers(tasks, fitted))
        judged = {"tasks": scores}
        if arrangement == "independent":  # `combined` asks the same networks
            judged["combined"] = arrangements.judge(arrangements.combined(tasks, fitted))
        result = STUDY / "runs" / f"{name}.json"
        files.write_json(result, {**judged, **spent})
        wall, processor = (None if np.isnan(total) else float(total) for total in sum(times, np.zeros(2)))
        if wall is None and earlier:  # it was trained to its end, and DVC did not record that
            run.log_tags({"repeats_run": earlier["run"]})
            print(f"{name}: trained before, by run {earlier['run'][:8] or '-'}; DVC did not record it: judged again")
            wall, processor = earlier["seconds"], earlier["cpu_seconds"]
        seconds = {"seconds": wall, "cpu_seconds": processor}
        files.write_json(STUDY / "runs" / f"{name}.seconds.json", seconds)
        if wall is not None and processor is not None:
            run.log_metrics({"fit_seconds": wall, "fit_cpu_seconds": processor})
        both = evaluation.flat({"combined": judged.get("combined", {})})
        run.log_metrics({**spent, **evaluation.flat(scores), **both})
        for task in tasks:
            score, answered = scores.get(task, {}).get("score"), "no answer, as no other task implies it"
            if task in scores:
                answered = "a score that is undefined" if score is None else f"score {score:.4f}"
            print(f"{name}: {task}: {answered}")
        checkpoint.finish(folder, result, run.identity.run_id or "", STUDY / "dvc.lock", **seconds)


def feed(split: Split, tasks: Sequence[arrangements.Question], heads: Sequence[Head]) -> Feed:
    """The feed of the images of a split of which a label of some task is known; the others' have no weight."""
    from mtl.data import streams
    from mtl.tasks import heads as of_heads

    images, targets = store.read_images(split), [task.targets[split] for task in tasks]
    chosen = np.any([part.any_known for part in targets], axis=0).nonzero()[0]
    columns = [
        of_heads.carried(task.task, Targets(*(part[chosen] for part in of_task)), head).reshape(len(chosen), -1)
        for task, of_task, head in zip(tasks, targets, heads, strict=True)
    ]
    labels = np.concatenate(columns, axis=1)
    return streams.feed(images[chosen], labels[:, 0] if labels.shape[1] == 1 else labels)


def clocks() -> np.ndarray:
    """Seconds of the clock on the wall and of processor time, which leaves out what other processes do."""
    return np.array([time.perf_counter(), time.process_time()])
