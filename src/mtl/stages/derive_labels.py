"""Derive the labels of every task into data/labels: `python src/derive_labels.py`."""

import shutil

import numpy as np

from mtl import tracking
from mtl.config import params
from mtl.data import paths, store
from mtl.tasks import columns, grouping
from mtl.tasks.columns import SPLITS
from mtl.tasks.spec import TaskSpec
from mtl.tasks.targets import Targets


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
            column = grouping.column_of(name, task, list(dataset.columns))
            derived[name] = grouping.derive(name, task, column, {split: tables[split][column] for split in SPLITS})
        shutil.rmtree(paths.LABELS, ignore_errors=True)  # run by hand, the labels of a former task would stay
        for name, (spec, targets) in derived.items():
            store.write_targets(spec, targets)
            run.log_json({split: _counts(spec, part) for split, part in targets.items()}, f"{name}.json")
            print(f"{name}: " + ", ".join(f"{index} = {label}" for index, label in enumerate(spec.names)))


def _counts(task: TaskSpec, targets: Targets) -> dict[str, int]:
    """The number of examples of each name."""
    counts = np.bincount(targets.labels[targets.known], minlength=len(task.names))
    return dict(zip(task.names, counts.tolist(), strict=True))
