"""Judge the models of all tasks together, on the test images: `python src/main_evaluate.py`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl import evaluation, files, tracking
from mtl.config import params
from mtl.config.params import AnswerName
from mtl.data import backend, paths, store
from mtl.evaluation import figures, gallery
from mtl.networks import saving
from mtl.tasks import columns, relations
from mtl.tasks.answers import Answers
from mtl.tasks.columns import Split
from mtl.tasks.kinds import Rows
from mtl.tasks.relations import Relations
from mtl.tasks.spec import read_from_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def main() -> None:
    """Stage `main_evaluate`."""
    settings = params.read()
    outside = backend.note_settings()
    backend.import_tensorflow()
    from mtl.networks import catalog

    with tracking.stage_run("main_evaluate", settings) as run, tempfile.TemporaryDirectory() as folder:
        backend.configure(settings.hardware, "float32", settings.seed)
        dataset, images = store.read_dataset(), store.read_images("test")
        run.log_dataset(dataset)
        run.log_tags(outside)
        second: tuple[Split, ...] = ("shifted",) if store.has_shifted() else ()
        by_split, costs = answer(settings, "test", "validation", *second)
        answers, related = by_split["test"], relate(by_split["validation"], settings.answers())
        verdict, tables = evaluation.judge(answers, related, costs), evaluation.tables(answers)
        if second:
            verdict["shifted"] = evaluation.judge_shifted(by_split["shifted"], related)
        galleries = gallery.draw(answers, related, images, columns.describe(store.read_columns("test")))
        write(verdict, related, tables, galleries)

        run.log_metrics(evaluation.flat(verdict))
        for name, of_task in tables.items():
            for task, rows in of_task.items():
                run.log_table(f"{name}/{task}", rows)
        run.log_figures({f"gallery/{name}": figure for name, figure in galleries.items()})
        for task in settings.tasks:
            shutil.copy(paths.model_path(task), folder)
        shutil.copy(paths.RELATIONS, folder)
        networks = [settings.recipe(task).network for task in settings.tasks]
        imports = catalog.own_modules(*networks, *(a.task.kind for a in answers.values()))
        files.write_json(Path(folder) / "imports.json", imports)
        run.log_joint_model(Path(folder), images)
        report(settings, answers, related, verdict, tables)


def answer(settings: params.Params, *splits: Split) -> tuple[dict[Split, dict[str, Answers]], dict[str, int]]:
    """The answers of each task's model to the images of each split, and its multiply-adds per image."""
    from mtl.networks import catalog, inference

    shape, answers = store.read_dataset().shape, {split: dict[str, Answers]() for split in splits}
    costs = dict[str, int]()
    images = {split: store.read_images(split) for split in splits}
    for task in settings.tasks:
        recipe, path = settings.recipe(task), paths.model_path(task)
        catalog.find(recipe.network)  # a person's own module may register its layers
        model = saving.read_for(store.read_task(task), shape, path)
        spec = read_from_model(path)  # with what training decided
        costs[task] = inference.multiply_adds(model)
        for split in splits:
            labels, known = store.read_targets(task, split)
            outputs = inference.predict(model, images[split])
            answers[split][task] = Answers(spec, labels, outputs, recipe.loss, known)
    return answers, costs


def relate(on_validation: Mapping[str, Answers], asked: Mapping[str, AnswerName]) -> Relations:
    """The relations between the tasks, from the training labels and the answers to the validation images.

    `asked`: the tasks whose answer is not their own model's.
    """
    specs = {task: a.task for task, a in on_validation.items()}
    learned = relations.learn(specs, {task: store.read_targets(task, "train") for task in specs})
    return relations.choose(learned, on_validation, asked)


def write(
    verdict: Mapping[str, Any],
    related: Relations,
    tables: Mapping[str, Mapping[str, Rows]],
    galleries: Mapping[str, Figure],
) -> None:
    """Write the outputs of the stage."""
    files.write_json(paths.METRICS / "main_evaluate.json", verdict)
    files.write_bytes(paths.RELATIONS, f"{related.model_dump_json()}\n".encode())  # tables of many rows, for programs
    for name in (*paths.TABLES, "gallery"):
        shutil.rmtree(paths.PLOTS / name, ignore_errors=True)  # run by hand, those of a former task would stay
    for name, header in paths.TABLES.items():
        for task, rows in tables.get(name, {}).items():
            files.write_csv(paths.PLOTS / name / f"{task}.csv", rows)
        if name not in tables:  # git, and so a clone, has no folder without a file
            files.write_bytes(paths.PLOTS / name / "empty.csv", f"{header}\n".encode())
    for name, figure in galleries.items():
        files.write_bytes(paths.PLOTS / "gallery" / f"{name}.png", figures.png(figure))


def report(
    settings: params.Params,
    answers: Mapping[str, Answers],
    related: Relations,
    verdict: Mapping[str, Any],
    tables: Mapping[str, Mapping[str, Rows]],
) -> None:
    """Print what was judged on what, and the sums over all tasks."""
    gone = sorted({path.stem for path in paths.MODELS.glob("*.keras")} - set(settings.tasks))
    if gone:
        print(f"left out, no such task in {params.PATH}: {', '.join(gone)}")
    alone = [task for task in answers if task not in related.derived]
    if alone:
        print(f"no derived answer, as no other task's labels imply theirs: {', '.join(alone)}")
    for task, name in related.answer.items():
        print(f"{task}: the joint model gives the {name} answer, from {related.derived[task]}")
    drawn = tables.get("confusion", {})
    large = [task for task, a in answers.items() if a.task.kind == "classes" and task not in drawn]
    if large:
        print(f"no confusion matrix, too many classes: {', '.join(large)}")
    for task, got in verdict["tasks"].items():
        count = len(answers[task].labels)
        if got["examples"] < count:
            print(f"{task}: judged on {got['examples']} of {count} test images, whose labels are known")
    print(sums(verdict))
    if shifted := verdict.get("shifted"):
        print(f"shifted test set, {shifted['examples']} images: {sums(shifted)}")


def sums(verdict: Mapping[str, Any]) -> str:
    """The sums over all tasks, in a line."""
    return ", ".join(f"{key} {verdict[key]:.4f}" for key in ("sum_loss", "ave_acc", "ave_skill") if key in verdict)
