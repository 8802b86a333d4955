"""Train the model of one task: `python src/train.py model1`."""

from __future__ import annotations

import time

import numpy as np

from mtl import files, tracking
from mtl.config import params
from mtl.data import backend, paths, store
from mtl.errors import UserError
from mtl.networks import saving
from mtl.tasks.columns import SPLITS
from mtl.training import checkpoint, hardware
from mtl.training.multiworker import cluster

TRIED = 8  # images that an untrained network answers, to see that it fits its task
PREFIX = {"train": "train", "validation": "val", "test": "test"}  # of the metrics, as Keras names them


def main(task: str) -> None:
    """Stage `train@<task>`."""
    settings = params.read()
    outside = backend.note_settings()
    backend.import_tensorflow(settings.recipe(task).precision)
    from mtl.data import streams
    from mtl.data.feeds import Plan
    from mtl.networks import catalog, inference
    from mtl.tasks import heads, kinds
    from mtl.tasks.answers import Answers
    from mtl.tracking import boards
    from mtl.training import finishing, fitting

    ours = cluster.of(settings.hardware)  # of several machines the chief alone writes and tracks
    place = task if ours.chief else f"{task}-worker-{ours.index}"
    tracked = tracking.stage_run(task, settings, f"train@{task}") if ours.chief else tracking.no_run()
    with checkpoint.exclusive(place) as folder, tracked as run:
        earlier = checkpoint.finished(folder)
        spec, examples = store.read_task(task), {split: store.read_examples(split, task) for split in SPLITS}
        kind, learned = kinds.find(spec.kind), (examples["train"], examples["validation"])
        head = heads.of_task(settings, spec, *(part.targets for part in learned))
        images, shape = examples["train"].images, examples["train"].images.shape[1:]
        dataset = store.read_dataset()
        run.log_dataset(dataset)
        recipe = backend.resolve_here(settings.recipe(task))
        if recipe.calibrate != "none" and not len(examples["validation"].images):
            raise UserError(
                f"{params.PATH}: recipes.{settings.tasks[task].recipe}.calibrate: a temperature is fitted on the"
                f" validation images, and none has a label of {task}; hold some out, or calibrate: none"
            )
        native = str(backend.native_bfloat16()).lower()
        run.log_tags({"native_bfloat16": native, "precision": recipe.precision, **outside})
        backend.configure(settings.hardware, recipe.precision, settings.seed)
        strategy = hardware.strategy(settings.hardware, f"{task} in {recipe.precision}")
        run.log_tags({"strategy": hardware.name(strategy)})
        with strategy.scope():
            model = catalog.build(recipe, shape, len(spec.names), images, [spec.kind])
        untrained = inference.finish(inference.plain(model), spec, recipe.mirror)
        saving.check(untrained)
        if fault := kind.fault(inference.predict(untrained, np.asarray(images[:TRIED]))):
            raise UserError(f"network {recipe.network!r}, before it is trained: {fault}")
        training, validation = (streams.feed(part.images, heads.carried(spec, part.targets, head)) for part in learned)
        board = boards.callbacks(recipe, spec, training, validation) if ours.chief else []
        plan, started = Plan(recipe, settings.seed, (head,)), time.perf_counter()
        history, epochs = fitting.fit(model, plan, training, validation, folder, run.log_epoch, callbacks=board)
        seconds = time.perf_counter() - started
        if epochs < recipe.epochs:
            run.log_tags({"resumed_after_epoch": str(recipe.epochs - epochs)})
        if epochs:
            an_epoch = recipe.steps_per_epoch * recipe.batch_size if recipe.steps_per_epoch else len(training)
            run.log_metrics({"fit_seconds": seconds, "images_per_second": an_epoch * epochs / seconds})
        elif earlier:
            run.log_tags({"repeats_run": earlier["run"]})
            print(f"{task}: trained before, by run {earlier['run'][:8] or '-'}; DVC did not record it: judged again")
        if not ours.chief:
            print(f"{task}: trained; worker 0, the chief, has the model and judges it")
            return

        finished = finishing.finish(inference.plain(model), spec, recipe, examples["validation"])
        spec = finished.task
        saving.write(finished.model, paths.model_path(task), spec)
        model = saving.read(paths.model_path(task))  # what is judged is what was saved
        metrics: dict[str, float] = {}
        for split in SPLITS:
            part = examples[split]
            if not len(part.images):
                continue
            if split == "validation":
                answers = finished.validation
            else:
                answers = Answers(spec, part.labels, inference.predict(model, part.images), recipe.loss, part.known)
            metrics |= {f"{PREFIX[split]}_{name}": value for name, value in kinds.summary(answers).items()}
        collapsed = kind.one_answer(answers.outputs)
        calibrated = {"calibration": finished.calibration} if finished.calibration else {}
        files.write_json(paths.METRICS / f"{task}.json", metrics | calibrated | {"precision": recipe.precision})
        files.write_csv(paths.PLOTS / f"{task}_history.csv", history)

        run.log_metrics({name: value for name, value in metrics.items() if name.startswith("test_")})
        run.log_metrics({f"calibration.{name}": value for name, value in finished.calibration.items()})
        run.log_history(task, history)
        run.log_model(model, spec, catalog.own_modules(recipe.network, spec.kind), examples["test"].images)
        run.log_tags({"one_class": str(collapsed).lower()})
        known, every = len(examples["test"].images), dataset.test
        of = f" on {known} of {every} test images, whose labels are known" if known < every else ""
        print(f"{task}: " + ", ".join(f"{name} {metrics[name]:.4f}" for name in metrics if "test_" in name) + of)
        if collapsed:
            said = kind.caption(spec, kind.decode(spec, answers.outputs[:1])[0])
            print(f"WARNING: {task} answers {said!r} for every test image: its training collapsed")
        checkpoint.finish(folder, paths.model_path(task), run.identity.run_id or "")  # last of all
