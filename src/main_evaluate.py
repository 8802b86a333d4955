"""Judge the models of all tasks together, on the test images: `python src/main_evaluate.py`."""

import shutil
import tempfile
from pathlib import Path

from mtl import errors, evaluation, gallery, hardware, leftovers, lineage, models, params, plots, store, tracking


def main() -> None:
    """Stage `main_evaluate`."""
    settings = params.read()
    leftovers.clear()
    outside = hardware.note_settings()
    hardware.import_tensorflow()
    from mtl import networks

    with tracking.stage_run("main_evaluate", settings) as run, tempfile.TemporaryDirectory() as folder:
        hardware.configure(settings.hardware, "float32", settings.seed)
        dataset, images = store.read_dataset(), store.read_images("test")
        run.log_dataset(dataset)
        run.log_tags(outside)
        answers, about = {}, {}
        for task in settings.tasks:
            classes = store.read_classes(task)
            networks.find(settings.recipe(task).network)  # a person's own module may register its layers
            model = models.read_for(classes["classes"], dataset.shape, store.model_path(task))
            answers[task] = evaluation.Answers(
                labels=store.read_labels(task, "test"),
                probabilities=networks.predict(model, images),
                classes=tuple(classes["classes"]),
                of_class=classes["of_class"],
                loss=settings.recipe(task).loss,
            )
            shutil.copy(store.model_path(task), folder)
            about[task] = store.describe_task(task)
        gone = sorted({path.stem for path in store.MODELS.glob("*.keras")} - set(settings.tasks))
        if gone:
            print(f"left out, no such task in {params.PATH}: {', '.join(gone)}")

        verdict = evaluation.judge(answers)
        alone = [task for task in answers if task not in verdict.get("derived", {})]
        if alone:
            print(f"no derived answer, as no other task's labels imply theirs: {', '.join(alone)}")
        truth = [dataset.classes[label] for label in store.read_array(store.RAW / "y_test.npy").ravel()]
        tables, galleries = evaluation.tables(answers), gallery.draw(answers, images, truth)

        store.write_json(store.METRICS / "main_evaluate.json", verdict)
        for kind in (*tables, "gallery"):
            shutil.rmtree(store.PLOTS / kind, ignore_errors=True)  # run by hand, those of a former task would stay
        for kind, of_task in tables.items():
            for task, rows in of_task.items():
                store.write_csv(store.PLOTS / kind / f"{task}.csv", rows)
        for name, figure in galleries.items():
            store.write_bytes(store.PLOTS / "gallery" / f"{name}.png", plots.png(figure))

        run.log_metrics(evaluation.flat(verdict))
        run.log_figures(plots.of_tables(tables) | {f"gallery/{name}": figure for name, figure in galleries.items()})
        for key in ("classes", "of_class", "frequencies"):
            store.write_json(Path(folder) / f"{key}.json", {task: known[key] for task, known in about.items()})
        imports = networks.own_modules(settings.recipe(task).network for task in settings.tasks)
        store.write_json(Path(folder) / "imports.json", imports)
        run.log_joint_model(Path(folder), images)
        print(f"sum_loss {verdict['sum_loss']:.4f}, ave_acc {verdict['ave_acc']:.4f}")


if __name__ == "__main__":
    errors.run(main, lineage.restore)
