"""The joint answer: the answers of all tasks, contradictions between them, and the truth that clients tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl.errors import one_line
from mtl.serving.refusals import Refused
from mtl.tasks import kinds, relations
from mtl.tasks.relations import Relations
from mtl.tasks.spec import TaskSpec


def answer(tasks: Mapping[str, TaskSpec], outputs: Mapping[str, np.ndarray], related: Relations) -> dict[str, Any]:
    """Make the joint answer for one image: `answers` by task, `contradiction`, and `contradictions` in words.

    Each task is answered by its option; an answer that is not its own model's says so under `answer`. `contradiction`
    is None where no labels of two tasks can contradict each other.

    Args:
        tasks: what the answers of each task mean.
        outputs: float32 (1, K) of each task's own model; contradictions are between these.
        related: the relations between the tasks.
    """
    own = {task: kinds.find(spec.kind).decode(spec, outputs[task])[0] for task, spec in tasks.items()}
    others = {}
    for task in related.answer:
        spec = related.meaning(tasks[task])
        others[task] = kinds.find(spec.kind).decode(spec, relations.answered(related, outputs, spec))[0]
    answers = {task: others.get(task, own[task]) | related.note(task) for task in tasks}
    contradicted = relations.contradictions(related, relations.labels_of(tasks, outputs))
    contradictions = [
        f"{base} says {bare(own[base])}, {task} says {bare(own[task])}"
        for (base, task), is_so in contradicted.items()
        if is_so[0]
    ]
    contradiction = bool(contradictions) if contradicted else None
    return {"answers": answers, "contradiction": contradiction, "contradictions": contradictions}


def bare(answer: Mapping[str, Any]) -> Any:
    """The answer proper, without its probabilities or unit: its first entry, of the form of a truth."""
    return next(iter(answer.values()))


def classes(tasks: Mapping[str, TaskSpec]) -> list[str]:
    """The classes of an image, sorted: the values of the one column that all tasks group. Empty where none does."""
    one = len({spec.columns for spec in tasks.values()}) == 1 and all(spec.groups for spec in tasks.values())
    return sorted({value for spec in tasks.values() for value in spec.groups}) if one else []


def truth(tasks: Mapping[str, TaskSpec], content: Mapping[str, Any]) -> dict[str, Any]:
    """The right label of each task by the body of a feedback; tasks that it says nothing of are left out.

    It has `labels`, {task: label}, or, where all tasks group one column, `class`, a value of that.

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
        raise Refused(f"no class says the truth of all tasks, which are of {columns}; give labels by task")
    known = {task: spec.groups[value] for task, spec in tasks.items() if value in spec.groups}
    if not known:
        raise Refused(f"no task knows a class {value!r:.80}")
    return known


def _of_labels(tasks: Mapping[str, TaskSpec], labels: Any) -> dict[str, Any]:
    """The truth that `labels` tell where each is of a task that is served. Raises Refused."""
    if not isinstance(labels, dict) or not labels:
        raise Refused("labels must be a mapping of tasks to labels, such as {task: label}")
    truths = {}
    for task, label in labels.items():
        if task not in tasks:
            raise Refused(f"there is no task {task!r:.80}; there are {', '.join(tasks)}")
        try:
            truths[task] = kinds.find(tasks[task].kind).truth(tasks[task], label)
        except ValueError as error:
            raise Refused(f"labels: {one_line(error)}") from None
    return truths
