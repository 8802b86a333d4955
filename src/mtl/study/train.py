"""Train one arrangement with one seed and judge it on the test images: `python study/train.py shared 0`."""

import time
from functools import partial
from pathlib import Path

import numpy as np

from mtl import files, tracking
from mtl.config import params
from mtl.config.reading import read_as
from mtl.data import backend, store
from mtl.study import arrangements
from mtl.training import checkpoint, hardware

STUDY = Path("study")


def main(arrangement: str, seed: int) -> None:
    """Stage `train@<arrangement>-<seed>` of the study."""
    settings, study = params.read(), read_as(arrangements.Study, STUDY / "params.yaml")
    tasks = arrangements.questions()
    weights = arrangements.weights(study, list(tasks))
    outside = backend.note_settings()
    backend.import_tensorflow(study.recipe.precision)
    from mtl.data import streams
    from mtl.networks import catalog, inference
    from mtl.tasks.targets import Head, columns
    from mtl.training import fitting

    name = f"{arrangement}-{seed}"
    run_of_stage = tracking.stage_run("study", settings, f"train@{name}", STUDY)
    with checkpoint.exclusive(f"study-{name}") as folder, run_of_stage as run:
        earlier = checkpoint.finished(folder)
        dataset = store.read_dataset()
        run.log_dataset(dataset)
        run.log_tags(outside)
        run.log_params({"arrangement": arrangement, "seed": seed, "hardware": settings.hardware.model_dump()})
        run.log_params({"loss_weights": weights, "recipe": study.recipe.model_dump()})
        given: dict[str, np.ndarray] = {}
        took: list[np.ndarray] = []
        spent = {"multiply_adds": 0, "parameters": 0, "images_seen": 0}
        for network in arrangements.networks(arrangement, tasks, study.recipe.epochs):
            recipe = arrangements.recipe(study, network, tasks)
            heads = [Head(len(tasks[task].classes), weights[task]) for task in network.tasks]
            joined = "-".join(network.tasks)
            splits = store.read_splits(*network.tasks)
            backend.configure(settings.hardware, recipe.precision, seed)
            with hardware.strategy(hardware.one_machine(settings.hardware, "the study")).scope():
                model = catalog.build(recipe, dataset.shape, sum(head.labels for head in heads), splits["train"][0])
                fed = [streams.feed(*splits[split]) for split in ("train", "val")]
                started = clocks()
                on_epoch = partial(run.log_epoch, prefix=f"{joined}.")
                fitted = fitting.fit(model, recipe, seed, *fed, folder / joined, on_epoch, heads=heads)
            epochs = fitted[1]  # fewer than the recipe's where a killed training went on
            took.append((clocks() - started) * (recipe.epochs / epochs if epochs else np.nan))
            seen = recipe.epochs * dataset.train
            spent["images_seen"] += seen
            spent["parameters"] += model.count_params()
            # The two passes back, to the weights and to the activations, cost as much as the one forward, each.
            spent["multiply_adds"] += 3 * inference.multiply_adds(model) * seen
            probabilities = inference.predict(inference.plain(model), splits["test"][0])
            given |= {t: probabilities[:, part] for t, part in zip(network.tasks, columns(heads), strict=True)}

        result = {"tasks": arrangements.judge(arrangements.answers(tasks, given)), **spent}
        written = STUDY / "runs" / f"{name}.json"
        files.write_json(written, result)
        wall, processor = (None if np.isnan(total) else float(total) for total in sum(took, np.zeros(2)))
        if wall is None and earlier:  # it was trained to its end, and DVC did not record that
            run.log_tags({"repeats_run": earlier["run"]})
            print(f"{name}: trained before, by run {earlier['run'][:8] or '-'}; DVC did not record it: judged again")
            wall, processor = earlier["seconds"], earlier["cpu_seconds"]
        took_all = {"seconds": wall, "cpu_seconds": processor}
        files.write_json(STUDY / "runs" / f"{name}.seconds.json", took_all)
        run.log_metrics(spent | ({} if wall is None else {"fit_seconds": wall, "fit_cpu_seconds": processor}))
        run.log_metrics({f"{task}.{key}": value for task, got in result["tasks"].items() for key, value in got.items()})
        for task in tasks:
            got = result["tasks"].get(task)
            answered = f"accuracy {got['acc']:.4f}" if got else "no answer, as no other task implies it"
            print(f"{name}: {task}: {answered}")
        checkpoint.finish(folder, written, run.identity.run_id or "", STUDY / "dvc.lock", **took_all)


def clocks() -> np.ndarray:
    """Seconds on the wall and of this process' processor time, which does not count what else the machine does."""
    return np.array([time.perf_counter(), time.process_time()])
