"""Train the model of one task: `python src/train.py model1`."""

import sys
import time
from functools import partial

import numpy as np

from mtl import checkpoint, cluster, errors, hardware, leftovers, lineage, models, params, store, tracking


def main(task: str) -> None:
    """Stage `train@<task>`."""
    settings = params.read()
    leftovers.clear()
    recipe = settings.recipe(task)
    outside = hardware.note_settings()
    hardware.import_tensorflow(recipe.precision)
    from mtl import boards, networks, scores, streams, training

    ours = cluster.of(settings.hardware)  # of several machines the chief alone writes and tracks
    place = task if ours.chief else f"{task}-worker-{ours.index}"
    tracked = tracking.stage_run(task, settings, f"train@{task}") if ours.chief else tracking.no_run()
    with checkpoint.exclusive(place) as folder, tracked as run:
        earlier = checkpoint.finished(folder)
        dataset, classes, splits = store.read_dataset(), store.read_classes(task)["classes"], store.read_splits(task)
        run.log_dataset(dataset)
        run.log_tags({"native_bfloat16": str(hardware.native_bfloat16()).lower(), **outside})
        hardware.configure(settings.hardware, recipe.precision, settings.seed)
        strategy = hardware.strategy(settings.hardware, task)
        run.log_tags({"strategy": hardware.name(strategy)})
        with strategy.scope():
            model = networks.build(recipe, dataset.shape, len(classes), splits["train"][0])
        models.check(networks.plain(model))
        fed = {split: streams.feed(*splits[split]) for split in ("train", "val")}
        board = boards.callbacks(recipe, task, fed["train"], fed["val"], classes) if ours.chief else []
        started = time.perf_counter()
        history, epochs = training.fit(
            model, recipe, settings.seed, fed["train"], fed["val"], folder, run.log_epoch, callbacks=board
        )
        seconds = time.perf_counter() - started
        if epochs < recipe.epochs:
            run.log_tags({"resumed_after_epoch": str(recipe.epochs - epochs)})
        if epochs:
            an_epoch = recipe.steps_per_epoch * recipe.batch_size if recipe.steps_per_epoch else dataset.train
            run.log_metrics({"fit_seconds": seconds, "images_per_second": an_epoch * epochs / seconds})
        elif earlier:
            run.log_tags({"repeats_run": earlier["run"]})
            print(f"{task}: trained before, by run {earlier['run'][:8] or '-'}; DVC did not record it: judged again")
        if not ours.chief:
            print(f"{task}: trained; worker 0, the chief, has the model and judges it")
            return

        models.write(networks.plain(model), store.model_path(task), classes)
        model = models.read(store.model_path(task))  # what is judged is what was saved
        metrics, probabilities = {}, {}
        for split, (images, labels) in splits.items():
            if len(images):
                probabilities[split] = networks.predict(model, images)
                metrics |= scores.of_split(split, probabilities[split], labels, recipe.loss)
        store.write_json(store.METRICS / f"{task}.json", metrics)
        store.write_csv(store.PLOTS / f"{task}_history.csv", history)

        run.log_metrics({name: value for name, value in metrics.items() if name.startswith("test_")})
        run.log_history(task, history)
        about = store.describe_task(task) | {"task": task, "imports": networks.own_modules([recipe.network])}
        run.log_model(model, about, splits["test"][0])
        answers = np.unique(probabilities["test"].argmax(axis=1))
        run.log_tags({"one_class": str(len(answers) == 1).lower()})
        print(f"{task}: test loss {metrics['test_loss']:.4f}, test accuracy {metrics['test_acc']:.4f}")
        if len(answers) == 1:
            print(f"WARNING: {task} answers {classes[answers[0]]!r} for every test image: its training collapsed")
        checkpoint.finish(folder, store.model_path(task), run.identity.run_id or "")  # last of all


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python src/train.py <task>")
    errors.run(partial(main, sys.argv[1]), lineage.restore)
