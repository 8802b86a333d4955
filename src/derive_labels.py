"""Derive the labels of every task into data/labels: `python src/derive_labels.py`."""

import shutil

from mtl import errors, labels, lineage, params, store, tracking


def main() -> None:
    """Stage `derive_labels`."""
    settings = params.read()
    dataset = store.read_dataset()
    with tracking.stage_run("derive_labels", settings) as run:
        run.log_dataset(dataset)
        groups = {name: labels.group_classes(name, task, dataset.classes) for name, task in settings.tasks.items()}
        shutil.rmtree(store.LABELS, ignore_errors=True)  # run by hand, the labels of a former task would stay
        for name, of_class in groups.items():
            names = labels.group_names(settings.tasks[name], dataset.classes)
            counts = {}
            for split in store.SPLITS:
                y = labels.derive(store.read_array(store.RAW / f"y_{split}.npy"), of_class, names)
                store.write_array(store.LABELS / name / f"y_{split}.npy", y)
                counts[split] = {label: int((y == index).sum()) for index, label in enumerate(names)}
            store.write_json(store.LABELS / name / "classes.json", {"classes": names, "of_class": of_class})
            run.log_json(counts, f"{name}.json")
            print(f"{name}: " + ", ".join(f"{index} = {label}" for index, label in enumerate(names)))


if __name__ == "__main__":
    errors.run(main, lineage.restore)
