"""The joint answer: the answers of all tasks, and contradictions between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl.tasks import relations
from mtl.tasks.spec import TaskSpec


def answer(tasks: Mapping[str, TaskSpec], probabilities: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Make the joint answer for one image: `answers` by task, `contradiction`, and `contradictions` in words.

    `contradiction` is None if no task is known to imply another.

    Args:
        tasks: what the answers of each task mean.
        probabilities: float32 (1, K) of each task.
    """
    labels = {task: probabilities[task].argmax(axis=1) for task in tasks}
    names = {task: spec.names[int(labels[task][0])] for task, spec in tasks.items()}
    answers = {
        task: {"label": name, "probability": float(probabilities[task][0].max())} for task, name in names.items()
    }
    related = relations.find_all(tasks)
    contradictions = [
        f"{base} says {names[base]}, {task} says {names[task]}"
        for task, contradicted in relations.contradictions(related, labels).items()
        if contradicted[0] and (base := related[task].base)
    ]
    contradiction = bool(contradictions) if related else None
    return {"answers": answers, "contradiction": contradiction, "contradictions": contradictions}


def truth(tasks: Mapping[str, TaskSpec], value: str) -> dict[str, str]:
    """Find each task's name for an image whose class is `value`; tasks that do not have the class are left out."""
    return {task: spec.groups[value] for task, spec in tasks.items() if value in spec.groups}
