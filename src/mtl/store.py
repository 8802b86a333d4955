"""Where every file of the DAG lives, and how it is written: whole or not at all, and the same bytes every time."""

from __future__ import annotations

import csv
import glob
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mtl.errors import UserError, describe_os_error

if TYPE_CHECKING:
    from mtl.shards import Images

RAW = Path("data/raw")
LABELS = Path("data/labels")
MODELS = Path("models")
METRICS = Path("metrics")
PLOTS = METRICS / "plots"
SHARDS = "shards.json"  # in data/raw where the images are in TFRecord shards: where those are
CHECKPOINTS = Path(".checkpoints")  # no DVC out: what a killed training goes on from

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")


@dataclass(frozen=True)
class Dataset:
    """What data/raw holds. `encoding` says what the pixels went through: raw, jpeg, png, mixed or drawn."""

    name: str
    source: str
    official: bool
    classes: tuple[str, ...]
    encoding: str
    train: int
    validation: int
    test: int
    shape: tuple[int, int, int]


def model_path(task: str) -> Path:
    """Where the trained model of `task` is."""
    return MODELS / f"{task}.keras"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` and rename it to `path` at the end: no reader sees half a file.

    Raises UserError where the system refuses to write (a full disk, no rights).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_residue(path.parent, path.name)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {describe_os_error(error)}; make room or give access there") from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_residue(folder: Path, name: str = "") -> None:
    """Remove what killed processes left of files they were writing in `folder`: of one called `name`, or of any."""
    import psutil

    for left in folder.glob(f".{glob.escape(name) or '*'}.*.tmp"):
        pid = left.name.split(".")[-2]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            left.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` as a whole."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """Write JSON with sorted keys; NaN is refused with ValueError."""
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_bytes(path, f"{text}\n".encode())


def read_json(path: Path) -> Any:
    """Read JSON; raises UserError where the file is missing or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run `dvc repro`, or `dvc checkout` if it ran before") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); remove it and run `dvc repro`") from None


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of the same keys as CSV, the keys as the header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def write_array(path: Path, array: np.ndarray) -> None:
    """Write a `.npy` file, as `np.save` does."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def read_array(path: Path) -> np.ndarray:
    """Read a `.npy` file; objects are never unpickled. Raises UserError where it is missing or broken."""
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run `dvc repro`, or `dvc checkout` if it ran before") from None
    except (ValueError, EOFError) as error:
        raise UserError(f"{path}: not a NumPy array ({error}); `dvc checkout` brings it back") from None


def write_raw(dataset: Dataset, arrays: Mapping[str, np.ndarray], documents: Mapping[str, Any] | None = None) -> None:
    """Write data/raw: `{x,y}_{train,test}` and `validation` as `.npy`, and dataset.json.

    Where the images are in TFRecord shards there is no `x_…`; `documents` are what JSON then says of them. DVC leaves
    what an earlier run wrote (`persist`), so all else is removed.
    """
    contents = {**(documents or {}), "dataset.json": asdict(dataset)}
    for name, array in arrays.items():
        write_array(RAW / f"{name}.npy", array)
    for name, content in contents.items():
        write_json(RAW / name, content)
    for path in set(RAW.iterdir()) - {RAW / f"{name}.npy" for name in arrays} - {RAW / name for name in contents}:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def read_dataset() -> Dataset:
    """Read data/raw/dataset.json."""
    content = read_json(RAW / "dataset.json")
    return Dataset(**{**content, "classes": tuple(content["classes"]), "shape": tuple(content["shape"])})


def read_images(split: Split) -> np.ndarray | Images:
    """The images of a split, uint8 (N, H, W, 3): an array, or what reads like one from TFRecord shards."""
    if (RAW / SHARDS).exists():
        from mtl import shards

        return shards.read_images(split)
    return read_array(RAW / f"x_{split}.npy")


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
    """For `train` (without the held-out images) and `val` (those, may be none): indices into train, and the images."""
    images, held_out = read_images("train"), read_array(RAW / "validation.npy")
    kept = np.setdiff1d(np.arange(len(images)), held_out)
    return {"train": (kept, images[kept]), "val": (held_out, images[held_out])}


def labelled_tasks() -> list[str]:
    """The names of the tasks that data/labels holds, sorted. Raises UserError where there is none."""
    names = sorted(path.parent.name for path in LABELS.glob("*/classes.json"))
    if not names:
        raise UserError(f"{LABELS} is missing: run `dvc repro`, or `dvc checkout` if it ran before")
    return names


def read_labels(task: str, split: Split) -> np.ndarray:
    """The labels of `task` for a split, uint8 (N,)."""
    return read_array(LABELS / task / f"y_{split}.npy")


def read_classes(task: str) -> dict[str, Any]:
    """`classes` (names in label order) and `of_class` (data set class -> name) of `task`."""
    return read_json(LABELS / task / "classes.json")


def describe_task(task: str) -> dict[str, Any]:
    """What goes with a task's model wherever it goes: `read_classes`, and `frequencies` of the training labels."""
    content = read_classes(task)
    counts = np.bincount(read_labels(task, "train"), minlength=len(content["classes"]))
    return content | {"frequencies": (counts / counts.sum()).tolist()}
