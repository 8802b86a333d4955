"""Paths of the DAG's files, relative to the root of the repository."""

from __future__ import annotations

from pathlib import Path

RAW = Path("data/raw")
IMAGES = RAW / "images"
COLUMNS = RAW / "columns"
DATASET = COLUMNS / "dataset.json"
SHIFTED = RAW / "shifted"  # a second test set, where there is one
LABELS = Path("data/labels")
LABELS_SHIFTED = Path("data/labels_shifted")  # apart, so that what depends on data/labels does not rerun for these
TASK = "task.json"  # in data/labels/<task>: its TaskSpec
MODELS = Path("models")
METRICS = Path("metrics")
RELATIONS = METRICS / "relations.json"
PLOTS = METRICS / "plots"
# The tables of the verdict that dvc.yaml draws, a folder each, and their columns.
TABLES = {
    "confusion": "task,actual,predicted,images,share",
    "per_class": "task,class,images,acc,acc_low,acc_high",
    "per_label": "task,label,examples,true,average_precision,f1,threshold",
    "reliability": "task,low,high,images,confidence,acc",
    "values": "task,actual,predicted",
}
SHARDS = "shards.json"  # in data/raw/images, where the images are in TFRecord shards: the paths of those
CHECKPOINTS = Path(".checkpoints")  # no DVC out: the state that a killed training goes on from


def model_path(task: str) -> Path:
    """The path of the trained model of `task`."""
    return MODELS / f"{task}.keras"
