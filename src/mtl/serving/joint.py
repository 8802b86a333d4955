"""The joint answer: the answers of all tasks, and contradictions between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl import evaluation
from mtl.serving.loading import Labels


def find_implications(tasks: Mapping[str, Labels]) -> dict[str, tuple[str, dict[str, str]]]:
    """Find, for each task that others imply, the finest of these, and what each of its labels implies."""
    known = {
        task: evaluation.Answers(np.empty(0), np.empty(0), labels.classes, labels.of_class, "")
        for task, labels in tasks.items()
        if labels.of_class is not None
    }
    implications: dict[str, tuple[str, dict[str, str]]] = {}
    for task, labels in known.items():
        base = evaluation.finest_base(task, known)
        groups = None if base is None else evaluation.implied(known[base], labels)
        if base is not None and groups is not None:
            names = [labels.classes[group] for group in groups]
            implications[task] = (base, dict(zip(known[base].classes, names, strict=True)))
    return implications


def answer(tasks: Mapping[str, Labels], probabilities: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Make the joint answer for one image: `answers` by task, `contradiction`, and `contradictions` in words.

    `contradiction` is None if no task is known to imply another.

    Args:
        tasks: the labels of each task.
        probabilities: float32 (1, K) of each task.
    """
    names = {task: labels.classes[int(probabilities[task][0].argmax())] for task, labels in tasks.items()}
    answers = {
        task: {"label": name, "probability": float(probabilities[task][0].max())} for task, name in names.items()
    }
    implications = find_implications(tasks)
    contradictions = [
        f"{base} says {names[base]}, {task} says {names[task]}"
        for task, (base, implied) in implications.items()
        if implied[names[base]] != names[task]
    ]
    contradiction = bool(contradictions) if implications else None
    return {"answers": answers, "contradiction": contradiction, "contradictions": contradictions}


def truth(tasks: Mapping[str, Labels], name: str) -> dict[str, str]:
    """Find each task's label for an image of the data set's class `name`; tasks without one are left out."""
    # Without `of_class`, a label with the name of the class is taken for it.
    names = {
        task: (dict(zip(labels.classes, labels.classes, strict=True)) if labels.of_class is None else labels.of_class)
        for task, labels in tasks.items()
    }
    return {task: labels[name] for task, labels in names.items() if name in labels}
