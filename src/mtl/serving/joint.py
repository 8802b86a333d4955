"""What the models say together: an answer per task, and where one contradicts what another implies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl import evaluation
from mtl.serving.loading import Labels

NOTHING = np.empty(0)


def implications(tasks: Mapping[str, Labels]) -> dict[str, tuple[str, dict[str, str]]]:
    """For each task that another one implies: the finest such task, and what each of its classes implies."""
    known = {
        task: evaluation.Answers(NOTHING, NOTHING, labels.classes, labels.of_class, "")
        for task, labels in tasks.items()
        if labels.of_class is not None
    }
    found: dict[str, tuple[str, dict[str, str]]] = {}
    for task, labels in known.items():
        base = evaluation.finest_base(task, known)
        if base is not None:
            names = [labels.classes[group] for group in evaluation.implied(known[base], labels)]
            found[task] = (base, dict(zip(known[base].classes, names, strict=True)))
    return found


def answer(tasks: Mapping[str, Labels], probabilities: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The joint answer for one image: `answers` by task, `contradiction`, and `contradictions` in words.

    `contradiction` is None where no task is known to imply another.

    Args:
        tasks: the labels of each task.
        probabilities: float32 (1, K) of each task.
    """
    answers = {
        task: {"label": labels.classes[best], "probability": float(probabilities[task][0, best])}
        for task, labels in tasks.items()
        for best in [int(probabilities[task][0].argmax())]
    }
    known = implications(tasks)
    contradictions = [
        f"{base} says {answers[base]['label']}, {task} says {answers[task]['label']}"
        for task, (base, implied) in known.items()
        if implied[answers[base]["label"]] != answers[task]["label"]
    ]
    contradiction = bool(contradictions) if known else None
    return {"answers": answers, "contradiction": contradiction, "contradictions": contradictions}


def truth(tasks: Mapping[str, Labels], name: str) -> dict[str, str]:
    """The right label of each task for an image of the data set's class `name`; tasks that cannot tell are left out."""
    right = {task: (labels.of_class or {}).get(name) for task, labels in tasks.items()}
    own = {task: name for task, labels in tasks.items() if labels.of_class is None and name in labels.classes}
    return {task: label for task, label in right.items() if label is not None} | own
