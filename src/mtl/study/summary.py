"""Gather the runs of the study into metrics/study.json and draw them: `python study/summary.py`."""

import time
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mtl import files, tracking
from mtl.config import params
from mtl.config.reading import read_as
from mtl.data import backend, paths, store
from mtl.data.shards import ShardedImages
from mtl.evaluation import figures
from mtl.study import arrangements, figure, results

if TYPE_CHECKING:
    import keras

STUDY = Path("study")
IMAGES = 2000  # of the test images, on which the time per image is measured


def main() -> None:
    """Stage `summary` of the study."""
    settings, study = params.read(), read_as(arrangements.Study, STUDY / "params.yaml")
    tasks, dataset = arrangements.questions(), store.read_dataset()
    with tracking.stage_run("study", settings, "summary", STUDY) as run:
        run.log_dataset(dataset)
        milliseconds = measure(study, tasks, store.read_images("test")[:IMAGES])
        runs, combined = [], []
        for arrangement, seed in product(study.arrangements, study.seeds):
            name = STUDY / "runs" / f"{arrangement}-{seed}"
            result = files.read_json(name.with_suffix(".json")) | files.read_json(name.with_suffix(".seconds.json"))
            both, key = result.pop("combined", {}), {"arrangement": arrangement, "seed": seed}
            runs.append({**key, "milliseconds_per_image": milliseconds[arrangement, seed], **result})
            if both:  # the same networks answer some tasks with both
                combined.append({**runs[-1], "arrangement": "combined", "tasks": result["tasks"] | both})
        base = arrangements.networks("derived", tasks, study.recipe.epochs)
        content = {
            "data": dataset.name,
            "machine": backend.machine(),
            "tasks": list(tasks),
            "images": len(next(iter(tasks.values())).held_out.labels),
            "base": base[0].tasks[0] if base else None,
            "recipe": study.recipe.model_dump(),
            "loss_weights": arrangements.weights(study, tasks),
            "runs": [*runs, *combined],
        }
        plot = figure.gains(results.StudyResults.model_validate(content))
        files.write_bytes(STUDY / "gains.png", figures.png(plot))
        files.write_json(paths.METRICS / "study.json", content)
        run.log_json(content, "study.json")
        run.log_figures({"gains": plot})
        print(f"{len(runs)} runs; `mtl report` prints their table")


def measure(
    study: arrangements.Study, tasks: dict[str, arrangements.Question], images: np.ndarray | ShardedImages
) -> dict[tuple[str, int], float | None]:
    """Milliseconds of processor time that all networks of an arrangement take for an image, once per seed in turn.

    It is measured with one thread, so that it is also the time on the clock where nothing else runs. The networks are
    untrained: their weights do not change how long they take. With `mirror` they look at the mirror image too.
    """
    backend.import_tensorflow()
    from mtl.networks import catalog, inference

    backend.configure(params.Hardware(threads=1, strategy="one_device"), study.recipe.precision, 0)
    images = np.asarray(images)  # those in shards are read by TensorFlow, as it was set up just now
    models: dict[str, list[keras.Model]] = {}
    for arrangement in study.arrangements:
        models[arrangement] = []
        for network in arrangements.networks(arrangement, tasks, study.recipe.epochs):
            recipe = arrangements.recipe(study, network, tasks, arrangement)
            specs = [tasks[task].task for task in network.tasks]
            outputs = sum(len(spec.names) for spec in specs)
            network_of = catalog.build(recipe, images.shape[1:], outputs, images, [spec.kind for spec in specs])
            model = inference.views(inference.plain(network_of), recipe.mirror)
            inference.predict(model, images)  # the first call compiles
            models[arrangement].append(model)
    milliseconds: dict[tuple[str, int], float | None] = {}
    for seed, arrangement in product(study.seeds, study.arrangements):
        started = time.process_time()
        for model in models[arrangement]:
            inference.predict(model, images)
        seconds = time.process_time() - started
        milliseconds[arrangement, seed] = 1000 * seconds / len(images) if models[arrangement] else None
    return milliseconds
