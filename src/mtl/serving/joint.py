"""The joint answer: the answers of all tasks, contradictions between them, and the truth that clients tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl.serving.refusals import Refused
from mtl.tasks import relations
from mtl.tasks.spec import TaskSpec, shorten


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


def classes(tasks: Mapping[str, TaskSpec]) -> list[str]:
    """The classes of an image, sorted: the values of the one column of all tasks. Empty where there are several."""
    several = len({spec.columns for spec in tasks.values()}) > 1
    return [] if several else sorted({value for spec in tasks.values() for value in spec.groups})


def truth(tasks: Mapping[str, TaskSpec], content: Mapping[str, Any]) -> dict[str, str]:
    """The right label of each task by the body of a feedback; tasks that it says nothing of are left out.

    It has `labels`, {task: label}, or, where all tasks are of one column, `class`, a value of that.

    Raises Refused for any other body, and for an unknown task, label or class.
    """
    if ("class" in content) == ("labels" in content):
        raise Refused("the body must have id, and either labels, {task: label}, or class")
    if "labels" in content:
        return _of_labels(tasks, content["labels"])
    value = content["class"]
    if not isinstance(value, str):
        raise Refused("class must be text")
    if not classes(tasks):
        columns = ", ".join(sorted({column for spec in tasks.values() for column in spec.columns}))
        raise Refused(f"the tasks are of several columns ({columns}), so that no class says all; give labels by task")
    known = {task: spec.groups[value] for task, spec in tasks.items() if value in spec.groups}
    if not known:
        raise Refused(f"no task knows a class {value!r:.80}")
    return known


def _of_labels(tasks: Mapping[str, TaskSpec], labels: Any) -> dict[str, str]:
    """`labels` themselves where each is a label of a task that is served. Raises Refused."""
    if not isinstance(labels, dict) or not labels or not all(isinstance(label, str) for label in labels.values()):
        raise Refused("labels must be a mapping of tasks to labels, such as {task: label}, each of them text")
    for task, label in labels.items():
        if task not in tasks:
            raise Refused(f"there is no task {task!r:.80}; there are {', '.join(tasks)}")
        if label not in tasks[task].names:
            raise Refused(f"{task} has no label {label!r:.80}; it has {shorten(tasks[task].names)}")
    return labels
