"""Derive the labels of every task into data/labels: `python src/derive_labels.py`."""

import shutil

from mtl import tracking
from mtl.config import params
from mtl.data import paths, store
from mtl.tasks import columns, kinds, relations
from mtl.tasks.columns import SPLITS
from mtl.tasks.spec import TaskSpec, shorten


def main() -> None:
    """Stage `derive_labels`."""
    settings = params.read()
    dataset = store.read_dataset()
    with tracking.stage_run("derive_labels", settings) as run:
        run.log_dataset(dataset)
        table = store.read_columns()
        tables = {split: columns.of_split(table, split) for split in SPLITS}
        derived = {}
        for name, task in settings.tasks.items():
            derived[name] = kinds.find(task.kind).derive(name, task, tables)
        if asked := settings.answers():  # refused before the models are trained
            training = {name: targets["train"] for name, (_, targets) in derived.items()}
            learned = relations.learn({name: spec for name, (spec, _) in derived.items()}, training)
            validation = {name: targets["validation"].any_known for name, (_, targets) in derived.items()}
            relations.check_asked(learned, asked, validation)
        shutil.rmtree(paths.LABELS, ignore_errors=True)  # run by hand, the labels of a former task would stay
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
