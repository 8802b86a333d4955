"""Judge the models of all tasks together, on the test images: `python src/main_evaluate.py`."""

import shutil
import tempfile
from pathlib import Path

from mtl import evaluation, files, tracking
from mtl.config import params
from mtl.data import backend, paths, store
from mtl.evaluation import figures, gallery
from mtl.networks import saving


def main() -> None:
    """Stage `main_evaluate`."""
    settings = params.read()
    outside = backend.note_settings()
    backend.import_tensorflow()
    from mtl.networks import catalog, inference

    with tracking.stage_run("main_evaluate", settings) as run, tempfile.TemporaryDirectory() as folder:
        backend.configure(settings.hardware, "float32", settings.seed)
        dataset, images = store.read_dataset(), store.read_images("test")
        run.log_dataset(dataset)
        run.log_tags(outside)
        answers, about = {}, {}
        for task in settings.tasks:
            classes = store.read_classes(task)
            catalog.find(settings.recipe(task).network)  # a person's own module may register its layers
            model = saving.read_for(classes["classes"], dataset.shape, paths.model_path(task))
            answers[task] = evaluation.Answers(
                labels=store.read_labels(task, "test"),
                probabilities=inference.predict(model, images),
                classes=tuple(classes["classes"]),
                of_class=classes["of_class"],
                loss=settings.recipe(task).loss,
            )
            shutil.copy(paths.model_path(task), folder)
            about[task] = store.describe_task(task)
        gone = sorted({path.stem for path in paths.MODELS.glob("*.keras")} - set(settings.tasks))
        if gone:
            print(f"left out, no such task in {params.PATH}: {', '.join(gone)}")

        verdict = evaluation.judge(answers)
        alone = [task for task in answers if task not in verdict.get("derived", {})]
        if alone:
            print(f"no derived answer, as no other task's labels imply theirs: {', '.join(alone)}")
        truth = [dataset.classes[label] for label in files.read_array(paths.RAW / "y_test.npy").ravel()]
        tables, galleries = evaluation.tables(answers), gallery.draw(answers, images, truth)

        files.write_json(paths.METRICS / "main_evaluate.json", verdict)
        for kind in (*tables, "gallery"):
            shutil.rmtree(paths.PLOTS / kind, ignore_errors=True)  # run by hand, those of a former task would stay
        for kind, of_task in tables.items():
            for task, rows in of_task.items():
                files.write_csv(paths.PLOTS / kind / f"{task}.csv", rows)
        for name, figure in galleries.items():
            files.write_bytes(paths.PLOTS / "gallery" / f"{name}.png", figures.png(figure))

        run.log_metrics(evaluation.flat(verdict))
        for kind, of_task in tables.items():
            for task, rows in of_task.items():
                run.log_table(f"{kind}/{task}", rows)
        run.log_figures({f"gallery/{name}": figure for name, figure in galleries.items()})
        for key in ("classes", "of_class", "frequencies"):
            files.write_json(Path(folder) / f"{key}.json", {task: known[key] for task, known in about.items()})
        imports = catalog.own_modules(settings.recipe(task).network for task in settings.tasks)
        files.write_json(Path(folder) / "imports.json", imports)
        run.log_joint_model(Path(folder), images)
        print(f"sum_loss {verdict['sum_loss']:.4f}, ave_acc {verdict['ave_acc']:.4f}")
