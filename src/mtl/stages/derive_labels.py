"""Derive the labels of every task into data/labels: `python src/derive_labels.py`."""

import shutil

from mtl import files, tracking
from mtl.config import params
from mtl.data import paths, store
from mtl.tasks import grouping


def main() -> None:
    """Stage `derive_labels`."""
    settings = params.read()
    dataset = store.read_dataset()
    with tracking.stage_run("derive_labels", settings) as run:
        run.log_dataset(dataset)
        groups = {name: grouping.group_classes(name, task, dataset.classes) for name, task in settings.tasks.items()}
        shutil.rmtree(paths.LABELS, ignore_errors=True)  # run by hand, the labels of a former task would stay
        for name, of_class in groups.items():
            names = grouping.group_names(settings.tasks[name], dataset.classes)
            counts = {}
            for split in store.SPLITS:
                y = grouping.derive(files.read_array(paths.RAW / f"y_{split}.npy"), of_class, names)
                files.write_array(paths.LABELS / name / f"y_{split}.npy", y)
                counts[split] = {label: int((y == index).sum()) for index, label in enumerate(names)}
            files.write_json(paths.LABELS / name / "classes.json", {"classes": names, "of_class": of_class})
            run.log_json(counts, f"{name}.json")
            print(f"{name}: " + ", ".join(f"{index} = {label}" for index, label in enumerate(names)))
