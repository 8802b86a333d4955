"""Paths of the DAG's files, relative to the root of the repository."""

from __future__ import annotations

from pathlib import Path

RAW = Path("data/raw")
LABELS = Path("data/labels")
MODELS = Path("models")
METRICS = Path("metrics")
PLOTS = METRICS / "plots"
SHARDS = "shards.json"  # in data/raw where the images are in TFRecord shards: where those are
CHECKPOINTS = Path(".checkpoints")  # no DVC out: what a killed training goes on from


def model_path(task: str) -> Path:
    """Where the trained model of `task` is."""
    return MODELS / f"{task}.keras"
