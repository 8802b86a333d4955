"""Figures for MLflow runs. What `dvc plots` draws are the CSVs that the stages write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def learning_curves(task: str, history: Sequence[Mapping[str, float]]) -> Figure:
    """Loss and accuracy per epoch, on the training images and, where there are any, on the validation images."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    epochs = [row["epoch"] for row in history]
    for axes, key, name in zip(figure.subplots(1, 2), ("loss", "acc"), ("loss", "accuracy"), strict=True):
        axes.plot(epochs, [row[key] for row in history], marker=".", label="training (augmented)")
        if f"val_{key}" in history[0]:
            axes.plot(epochs, [row[f"val_{key}"] for row in history], marker=".", label="validation")
        axes.set(xlabel="epoch", ylabel=name, title=f"{task}: {name}")
        axes.grid(alpha=0.3)
        axes.legend()
    return figure
