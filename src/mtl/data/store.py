"""data/raw and data/labels: written by the first two stages, read by all others."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mtl import files
from mtl.data import paths, shards
from mtl.data.shards import ShardedImages
from mtl.errors import UserError
from mtl.tasks import columns, spec
from mtl.tasks.columns import Split
from mtl.tasks.spec import TaskSpec
from mtl.tasks.targets import Targets

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = "columns.parquet"
SHIFTED_IMAGES = "x_shifted.npy"

Images = np.ndarray | ShardedImages


@dataclass(frozen=True)
class Dataset:
    """The content of data/raw.

    Attributes:
        name: what the data set is called.
        source: `data.source`, from where it was loaded.
        official: for the splits whose images are those of an official data set to the byte, which of them they are.
        encoding: what the pixels went through: raw, jpeg, png, mixed or drawn.
        train, validation, test: the number of examples in each split.
        shape: height, width and channels of an image.
        columns: the type of each column: text, integer, number or boolean.
    """

    name: str
    source: str
    official: Mapping[str, str]
    encoding: str
    train: int
    validation: int
    test: int
    shape: tuple[int, int, int]
    columns: Mapping[str, str]

    @property
    def is_official(self) -> bool:
        """True if all images are those of an official data set, to the byte."""
        return set(self.official.values()) == {"all"}


class Examples(NamedTuple):
    """Images, uint8 (N, H, W, 3), and the labels of a task, of which each has some that are known."""

    images: Images
    targets: Targets

    @property
    def labels(self) -> np.ndarray:
        """The labels, as `Targets` has them."""
        return self.targets.labels

    @property
    def known(self) -> np.ndarray:
        """Which of the labels are known."""
        return self.targets.known

    def at(self, examples: np.ndarray) -> Examples:
        """Those at some indices, int (M,)."""
        return Examples(self.images[examples], Targets(*(part[examples] for part in self.targets)))


def write_raw(
    dataset: Dataset, table: pa.Table, images: Mapping[Split, np.ndarray], documents: Mapping[str, Any] | None = None
) -> None:
    """Write data/raw: `images/x_<split>.npy`, `columns/columns.parquet` and `columns/dataset.json`.

    DVC leaves what an earlier run wrote (`persist`), so all else in the two folders is removed.

    Args:
        dataset: what dataset.json holds.
        table: a row per example, the column `split` first, then those of the data set.
        images: uint8 (N, H, W, 3) of each split; none where they are in TFRecord shards.
        documents: what is written as JSON beside the images: where the shards are.
    """
    for split, array in images.items():
        files.write_array(paths.IMAGES / f"x_{split}.npy", array)
    for name, content in (documents or {}).items():
        files.write_json(paths.IMAGES / name, content)
    files.write_parquet(paths.COLUMNS / COLUMNS, table)
    files.write_json(paths.DATASET, asdict(dataset))
    _leave(paths.IMAGES, {*(f"x_{split}.npy" for split in images), *(documents or {})})
    _leave(paths.COLUMNS, {COLUMNS, paths.DATASET.name})
    _leave(paths.RAW, {paths.IMAGES.name, paths.COLUMNS.name, paths.SHIFTED.name, ".gitignore"})


def write_shifted(description: Mapping[str, Any], images: np.ndarray | None, table: pa.Table | None) -> None:
    """Write data/raw/shifted: `shifted.json` and, where there is a second test set, its images and columns.

    Args:
        description: its name, encoding and number of examples; empty where there is none.
        images: uint8 (N, H, W, 3), or None.
        table: a row per image with the columns of the data set, or None.
    """
    names = {"shifted.json"}
    if images is not None and table is not None:
        files.write_array(paths.SHIFTED / SHIFTED_IMAGES, images)
        files.write_parquet(paths.SHIFTED / COLUMNS, table)
        names |= {SHIFTED_IMAGES, COLUMNS}
    files.write_json(paths.SHIFTED / "shifted.json", description)
    _leave(paths.SHIFTED, names)


def _leave(folder: Path, names: set[str]) -> None:
    """Remove all from a folder but `names`."""
    for path in folder.iterdir():
        if path.name not in names:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def has_shifted() -> bool:
    """Tell whether data/raw holds a second test set."""
    return (paths.SHIFTED / COLUMNS).exists()


def is_loaded() -> bool:
    """Tell whether data/raw holds a data set."""
    return paths.DATASET.exists()


def read_dataset() -> Dataset:
    """Read dataset.json. Raises UserError where it is missing, or of an earlier version."""
    content = files.read_json(paths.DATASET)
    try:
        return Dataset(**{**content, "shape": tuple(content["shape"])})
    except (TypeError, KeyError):
        raise UserError(f"{paths.DATASET}: written by another version; `dvc repro` writes it anew") from None


def read_columns(split: Split | None = None) -> pa.Table:
    """Read the columns, a row per example of all splits in turn, or of one split without the column `split`."""
    table = files.read_parquet(paths.COLUMNS / COLUMNS)
    return table if split is None else columns.of_split(table, split)


def read_tables() -> dict[Split, pa.Table]:
    """The columns of each split, and of `shifted` where there is a second test set."""
    table = read_columns()
    tables = {split: columns.of_split(table, split) for split in columns.SPLITS}
    return tables | ({"shifted": files.read_parquet(paths.SHIFTED / COLUMNS)} if has_shifted() else {})


def read_images(split: Split) -> Images:
    """The images of a split, uint8 (N, H, W, 3): an array, or what reads like one from TFRecord shards."""
    if split == "shifted":
        return files.read_array(paths.SHIFTED / SHIFTED_IMAGES)
    if (paths.IMAGES / paths.SHARDS).exists():
        return shards.read_images(split, read_dataset().shape[:2])
    return files.read_array(paths.IMAGES / f"x_{split}.npy")


def _label_files(task: str, split: Split) -> tuple[Path, Path]:
    """The files of a task's labels and of which of them are known."""
    if split == "shifted":
        return paths.LABELS_SHIFTED / task / "y.npy", paths.LABELS_SHIFTED / task / "known.npy"
    return paths.LABELS / task / f"y_{split}.npy", paths.LABELS / task / f"known_{split}.npy"


def write_targets(task: TaskSpec, targets: Mapping[Split, Targets]) -> None:
    """Write data/labels/<task>: `task.json`, `y_<split>.npy`, and `known_<split>.npy` where a label is missing.

    Those of the split `shifted` are `y.npy` and `known.npy` in data/labels_shifted/<task>.
    """
    files.write_json(paths.LABELS / task.name / paths.TASK, task.document())
    for split, (labels, known) in targets.items():
        place, gaps = _label_files(task.name, split)
        files.write_array(place, labels)
        if known.all():
            gaps.unlink(missing_ok=True)
        else:
            files.write_array(gaps, known)


def labelled_tasks() -> list[str]:
    """The names of the tasks that data/labels holds, sorted. Raises UserError where there is none."""
    names = sorted(path.parent.name for path in paths.LABELS.glob(f"*/{paths.TASK}"))
    if not names:
        raise UserError(f"{paths.LABELS} is missing: run `dvc repro`, or `dvc checkout` if it ran before")
    return names


def read_task(task: str) -> TaskSpec:
    """Read the TaskSpec of `task`. Raises UserError where it is missing, or of another version."""
    return spec.read(paths.LABELS / task / paths.TASK)


def read_targets(task: str, split: Split) -> Targets:
    """Read the labels of `task` for a split."""
    place, gaps = _label_files(task, split)
    labels = files.read_array(place)
    return Targets(labels, files.read_array(gaps) if gaps.exists() else np.ones(labels.shape, bool))


def read_examples(split: Split, task: str) -> Examples:
    """Read the images of a split of which a label of `task` is known, and these labels.

    Raises UserError where images and labels are not of the same examples.
    """
    images, targets = read_images(split), read_targets(task, split)
    if len(targets.labels) != len(images):
        raise UserError(
            f"{paths.LABELS / task} has {len(targets.labels)} {split} labels and {paths.IMAGES} {len(images)} images;"
            " `dvc repro` derives them anew"
        )
    known = targets.any_known
    return Examples(images, targets) if known.all() else Examples(images, targets).at(known.nonzero()[0])
