"""Galleries: the most confident mistakes of each model, and where a model contradicts what another one implies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mtl.data.shards import ShardedImages
from mtl.evaluation import examples, figures
from mtl.tasks import kinds, relations
from mtl.tasks.answers import Answers
from mtl.tasks.relations import Relations

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 24  # pictures of a gallery
WORST = {"classes": "the mistakes it was surest of"}
WORST_OF_ALL = "its worst answers"


def draw(
    answers: Mapping[str, Answers],
    related: Relations,
    images: np.ndarray | ShardedImages,
    truth: Sequence[str],
) -> dict[str, Figure]:
    """A gallery `<task>_mistakes` for each task and `<task>_contradictions` for each that can contradict its base.

    Args:
        answers: those of each task's model to the images.
        related: the relations between the tasks.
        images: uint8 (N, H, W, 3).
        truth: the data set's own class of each image, N names.
    """

    def pictures(indices: np.ndarray) -> list[figures.Picture]:
        return [figures.Picture(np.asarray(images[i]), truth[i], _captions(answers, i)) for i in indices]

    galleries = {}
    contradicted = relations.contradicted_by(related, answers)
    for name, own in answers.items():
        title = f"{name}: {WORST.get(own.task.kind, WORST_OF_ALL)}"
        galleries[f"{name}_mistakes"] = figures.gallery(title, pictures(examples.mistakes(own, MOST)))
        base = related.derived.get(name, "")
        if (base, name) in contradicted:
            indices = examples.contradictions(answers[base], own, contradicted[base, name], MOST)
            title = f"{name} contradicts what {base} implies: where both were surest"
            galleries[f"{name}_contradictions"] = figures.gallery(title, pictures(indices))
    return galleries


def _captions(answers: Mapping[str, Answers], index: int) -> list[tuple[str, bool | None]]:
    """Each task's answer as `model1: cat 98 %`, and whether it is right (None: unknown, or neither right nor wrong)."""
    lines = []
    for name, a in answers.items():
        kind, one = kinds.find(a.task.kind), a.at(np.array([index]))
        answer = kind.caption(a.task, kind.decode(a.task, one.outputs)[0])
        utility, is_number = float(kind.utility(one)[0]), a.labels.dtype.kind == "f"
        lines.append((f"{name}: {answer}", None if is_number or np.isnan(utility) else utility == 1))
    return lines
