"""Galleries: the most confident mistakes of each model, and where a model contradicts what another one implies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mtl import evaluation
from mtl.data.shards import Images
from mtl.evaluation import Answers, figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 24  # pictures of a gallery


def draw(answers: Mapping[str, Answers], images: np.ndarray | Images, truth: Sequence[str]) -> dict[str, Figure]:
    """A gallery `<task>_mistakes` for each task and `<task>_contradictions` for each that another task implies.

    Args:
        answers: those of each task's model to the images.
        images: uint8 (N, H, W, 3).
        truth: the data set's own class of each image, N names.
    """

    def pictures(indices: np.ndarray) -> list[figures.Picture]:
        return [figures.Picture(np.asarray(images[i]), truth[i], _captions(answers, i)) for i in indices]

    galleries = {}
    for name, task in answers.items():
        title = f"{name}: the mistakes it was surest of"
        galleries[f"{name}_mistakes"] = figures.gallery(title, pictures(evaluation.mistakes(task, MOST)))
        base = evaluation.finest_base(name, answers)
        if base is not None:
            groups = evaluation.implied(answers[base], task)
            assert groups is not None  # `finest_base` names none but those
            indices = evaluation.contradictions(answers[base], task, groups, MOST)
            title = f"{name} contradicts what {base} implies: where both were surest"
            galleries[f"{name}_contradictions"] = figures.gallery(title, pictures(indices))
    return galleries


def _captions(answers: Mapping[str, Answers], index: int) -> list[tuple[str, bool]]:
    """Each task's answer as `model1: cat 98 %`, and whether it is right."""
    lines = []
    for name, task in answers.items():
        label = task.predicted[index]
        lines.append((f"{name}: {task.classes[label]} {task.confidence[index]:.0%}", label == task.labels[index]))
    return lines
