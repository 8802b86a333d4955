"""Derive the labels of every task into data/labels: `python src/derive_labels.py`."""

import shutil

from mtl import files, tracking
from mtl.config import params
from mtl.data import paths, store
from mtl.errors import UserError
from mtl.tasks import kinds, relations
from mtl.tasks.spec import TaskSpec, shorten


def main() -> None:
    """Stage `derive_labels`."""
    settings = params.read()
    dataset = store.read_dataset()
    with tracking.stage_run("derive_labels", settings) as run:
        run.log_dataset(dataset)
        tables = store.read_tables()
        derived = {}
        for name, task in settings.tasks.items():
            derived[name] = kinds.find(task.kind).derive(name, task, tables)
            if lacking := tables.keys() - derived[name][1].keys():
                raise UserError(f"tasks.{name}: the kind {task.kind} derives no labels of {', '.join(sorted(lacking))}")
        if "shifted" in tables and not any(targets["shifted"].known.any() for _, targets in derived.values()):
            raise UserError(
                f"{settings.data.shifted}: no label that a task asks about is known; add some, or move it away"
            )
        if asked := settings.answers():  # refused before the models are trained
            training = {name: targets["train"] for name, (_, targets) in derived.items()}
            learned = relations.learn({name: spec for name, (spec, _) in derived.items()}, training)
            validation = {name: targets["validation"].any_known for name, (_, targets) in derived.items()}
            relations.check_asked(learned, asked, validation)
        for folder in (paths.LABELS, paths.LABELS_SHIFTED):
            shutil.rmtree(folder, ignore_errors=True)  # run by hand, the labels of a former task would stay
        # A folder that is an output always has a file: git, and so a clone, has no empty one.
        files.write_json(paths.LABELS_SHIFTED / "tasks.json", sorted(derived) if "shifted" in tables else [])
        for name, (spec, targets) in derived.items():
            store.write_targets(spec, targets)
            kind = kinds.find(spec.kind)
            run.log_json({split: kind.counts(spec, part) for split, part in targets.items()}, f"{name}.json")
            print(f"{name}: " + _meaning(spec))


def _meaning(task: TaskSpec) -> str:
    """What the outputs stand for, in a line."""
    if task.kind == "classes":
        return ", ".join(f"{index} = {label}" for index, label in enumerate(task.names))
    return f"{task.kind} of {shorten(task.names)}" + (f" in {task.unit}" if task.unit else "")
