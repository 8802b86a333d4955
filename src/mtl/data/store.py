"""data/raw and data/labels: written by the first two stages, read by all others."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from mtl import files
from mtl.data import paths, shards
from mtl.data.shards import Images
from mtl.errors import UserError

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")


@dataclass(frozen=True)
class Dataset:
    """The content of data/raw. `encoding` says what the pixels went through: raw, jpeg, png, mixed or drawn."""

    name: str
    source: str
    official: bool
    classes: tuple[str, ...]
    encoding: str
    train: int
    validation: int
    test: int
    shape: tuple[int, int, int]


def write_raw(dataset: Dataset, arrays: Mapping[str, np.ndarray], documents: Mapping[str, Any] | None = None) -> None:
    """Write data/raw: `{x,y}_{train,test}` and `validation` as `.npy`, and dataset.json.

    Where the images are in TFRecord shards there is no `x_…`, and `documents` describe them in JSON. DVC leaves what an
    earlier run wrote (`persist`), so all else is removed.
    """
    contents = {**(documents or {}), "dataset.json": asdict(dataset)}
    for name, array in arrays.items():
        files.write_array(paths.RAW / f"{name}.npy", array)
    for name, content in contents.items():
        files.write_json(paths.RAW / name, content)
    for path in (
        set(paths.RAW.iterdir())
        - {paths.RAW / f"{name}.npy" for name in arrays}
        - {paths.RAW / name for name in contents}
    ):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def read_dataset() -> Dataset:
    """Read data/raw/dataset.json."""
    content = files.read_json(paths.RAW / "dataset.json")
    return Dataset(**{**content, "classes": tuple(content["classes"]), "shape": tuple(content["shape"])})


def read_images(split: Split) -> np.ndarray | Images:
    """The images of a split, uint8 (N, H, W, 3): an array, or what reads like one from TFRecord shards."""
    if (paths.RAW / paths.SHARDS).exists():
        return shards.read_images(split, read_dataset().shape[:2])
    return files.read_array(paths.RAW / f"x_{split}.npy")


def read_splits(*tasks: str) -> dict[str, tuple[np.ndarray | Images, np.ndarray]]:
    """Images and labels for `train` (without the held-out images), `val` (those, may be none) and `test`.

    The labels are uint8 (N,), of several tasks (N, T).
    """

    def read(split: Split) -> np.ndarray:
        labels = [read_labels(task, split) for task in tasks]
        return labels[0] if len(tasks) == 1 else np.stack(labels, axis=1)

    labels = read("train")
    splits = {name: (images, labels[chosen]) for name, (chosen, images) in read_training().items()}
    return splits | {"test": (read_images("test"), read("test"))}


def read_training() -> dict[str, tuple[np.ndarray, np.ndarray | Images]]:
    """Indices into train, and images, of `train` (without the held-out images) and `val` (those, may be none)."""
    images, held_out = read_images("train"), files.read_array(paths.RAW / "validation.npy")
    kept = np.setdiff1d(np.arange(len(images)), held_out)
    return {"train": (kept, images[kept]), "val": (held_out, images[held_out])}


def labelled_tasks() -> list[str]:
    """The names of the tasks that data/labels holds, sorted. Raises UserError where there is none."""
    names = sorted(path.parent.name for path in paths.LABELS.glob("*/classes.json"))
    if not names:
        raise UserError(f"{paths.LABELS} is missing: run `dvc repro`, or `dvc checkout` if it ran before")
    return names


def read_labels(task: str, split: Split) -> np.ndarray:
    """The labels of `task` for a split, uint8 (N,)."""
    return files.read_array(paths.LABELS / task / f"y_{split}.npy")


def read_classes(task: str) -> dict[str, Any]:
    """`classes` (names in label order) and `of_class` (data set class -> name) of `task`."""
    return files.read_json(paths.LABELS / task / "classes.json")


def describe_task(task: str) -> dict[str, Any]:
    """What goes with a task's model wherever it goes: `read_classes`, and `frequencies` of the training labels."""
    content = read_classes(task)
    counts = np.bincount(read_labels(task, "train"), minlength=len(content["classes"]))
    return content | {"frequencies": (counts / counts.sum()).tolist()}
