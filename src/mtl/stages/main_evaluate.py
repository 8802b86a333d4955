"""Judge the models of all tasks together, on the test images: `python src/main_evaluate.py`."""

import shutil
import tempfile
from pathlib import Path

from mtl import evaluation, files, tracking
from mtl.config import params
from mtl.data import backend, paths, store
from mtl.evaluation import figures, gallery
from mtl.networks import saving
from mtl.tasks import columns, relations
from mtl.tasks.answers import Answers
from mtl.tasks.columns import Split
from mtl.tasks.spec import read_from_model


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
        answers: dict[str, Answers] = {}
        on_validation: dict[str, Answers] = {}
        parts: dict[Split, tuple[store.Images, dict[str, Answers]]] = {
            "test": (images, answers),
            "validation": (store.read_images("validation"), on_validation),
        }
        for task in settings.tasks:
            recipe = settings.recipe(task)
            catalog.find(recipe.network)  # a person's own module may register its layers
            model = saving.read_for(store.read_task(task), dataset.shape, paths.model_path(task))
            spec = read_from_model(paths.model_path(task))  # with what training decided
            for split, (part, of_split) in parts.items():
                labels, known = store.read_targets(task, split)
                of_split[task] = Answers(spec, labels, inference.predict(model, part), recipe.loss, known)
            shutil.copy(paths.model_path(task), folder)
        specs = {task: a.task for task, a in answers.items()}
        learned = relations.learn(specs, {task: store.read_targets(task, "train") for task in specs})
        related = relations.choose(learned, on_validation)
        gone = sorted({path.stem for path in paths.MODELS.glob("*.keras")} - set(settings.tasks))
        if gone:
            print(f"left out, no such task in {params.PATH}: {', '.join(gone)}")

        verdict = evaluation.judge(answers, related)
        alone = [task for task in answers if task not in related.derived]
        if alone:
            print(f"no derived answer, as no other task's labels imply theirs: {', '.join(alone)}")
        truth = columns.describe(store.read_columns("test"))
        tables, galleries = evaluation.tables(answers), gallery.draw(answers, related, images, truth)
        large = [
            task for task, a in answers.items() if a.task.kind == "classes" and task not in tables.get("confusion", {})
        ]
        if large:
            print(f"no confusion matrix, too many classes: {', '.join(large)}")

        files.write_json(paths.METRICS / "main_evaluate.json", verdict)
        files.write_json(paths.RELATIONS, related.model_dump(mode="json"))
        shutil.copy(paths.RELATIONS, folder)
        for name in (*paths.TABLES, "gallery"):
            shutil.rmtree(paths.PLOTS / name, ignore_errors=True)  # run by hand, those of a former task would stay
        for name, header in paths.TABLES.items():
            for task, rows in tables.get(name, {}).items():
                files.write_csv(paths.PLOTS / name / f"{task}.csv", rows)
            if name not in tables:  # git, and so a clone, has no folder without a file
                files.write_bytes(paths.PLOTS / name / "empty.csv", f"{header}\n".encode())
        for name, figure in galleries.items():
            files.write_bytes(paths.PLOTS / "gallery" / f"{name}.png", figures.png(figure))

        run.log_metrics(evaluation.flat(verdict))
        for name, of_task in tables.items():
            for task, rows in of_task.items():
                run.log_table(f"{name}/{task}", rows)
        run.log_figures({f"gallery/{name}": figure for name, figure in galleries.items()})
        modules = {m for task, a in answers.items() for m in catalog.own_modules(settings.recipe(task), a.task.kind)}
        files.write_json(Path(folder) / "imports.json", sorted(modules))
        run.log_joint_model(Path(folder), images)
        for task, got in verdict["tasks"].items():
            if got["examples"] < len(images):
                print(f"{task}: judged on {got['examples']} of {len(images)} test images, whose labels are known")
        means = [f"{key} {verdict[key]:.4f}" for key in ("sum_loss", "ave_acc", "ave_skill") if key in verdict]
        print(", ".join(means))
