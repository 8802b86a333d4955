"""The joint verdict: pure functions of labels and probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtl import scores


@dataclass(frozen=True)
class Answers:
    """What the model of one task says of the test images.

    Attributes:
        labels: the right labels, uint8 (N,).
        probabilities: float32 (N, K).
        classes: the K names in label order.
        of_class: for each class of the data set the name it has in this task.
        loss: name of the recipe's loss.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    classes: tuple[str, ...]
    of_class: Mapping[str, str]
    loss: str


def implied(base: Answers, task: Answers) -> np.ndarray | None:
    """The label of `task` that each label of `base` implies, int (K_base,).

    None where some label of `base` says nothing certain about `task`, or where the two tell the same things apart.
    """
    pairs = {(base.of_class[c], task.of_class[c]) for c in base.of_class}
    if len(pairs) != len(base.classes) or len(base.classes) <= len(task.classes):
        return None
    label = dict(pairs)
    return np.array([task.classes.index(label[name]) for name in base.classes])


def group_sums(probabilities: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Probabilities (N, K) summed over the columns of each group, (N, G); `groups` (K,) names each column's group."""
    return probabilities @ np.eye(groups.max() + 1)[groups]


def judge(answers: Mapping[str, Answers]) -> dict[str, Any]:
    """The verdict over all tasks.

    Returns:
        `sum_loss` (sum of the tasks' losses), `ave_acc` (mean of their accuracies), `tasks.<task>.{loss,acc,nll}` and
        `one_class` (True where the model gives every image the same label: its training collapsed); for each task that
        another one implies `derived.<task>` with the accuracy `acc` of the summed probabilities of the
        finest such task, its name `from`, and `contradiction_rate`: how often the label that `from` names lies in
        another group than the one that the task's own model names. `contradiction_rate` at the top is the fraction of
        images with any such contradiction; both are left out where no task implies another.
    """
    tasks = {
        name: {
            "loss": scores.loss(a.probabilities, a.labels, a.loss),
            "acc": scores.accuracy(a.probabilities, a.labels),
            "nll": scores.nll(a.probabilities, a.labels),
            "one_class": len(np.unique(a.probabilities.argmax(axis=1))) == 1,
        }
        for name, a in answers.items()
    }
    verdict: dict[str, Any] = {
        "sum_loss": sum(task["loss"] for task in tasks.values()),
        "ave_acc": sum(task["acc"] for task in tasks.values()) / len(tasks),
        "tasks": tasks,
    }
    derived, contradicted = {}, []
    for name, a in answers.items():
        base = _finest_base(name, answers)
        if base is None:
            continue
        groups = implied(answers[base], a)
        named = groups[answers[base].probabilities.argmax(axis=1)]
        contradicted.append(named != a.probabilities.argmax(axis=1))
        derived[name] = {
            "from": base,
            "acc": scores.accuracy(group_sums(answers[base].probabilities, groups), a.labels),
            "contradiction_rate": float(contradicted[-1].mean()),
        }
    if derived:
        verdict |= {"derived": derived, "contradiction_rate": float(np.any(contradicted, axis=0).mean())}
    return verdict


def _finest_base(name: str, answers: Mapping[str, Answers]) -> str | None:
    """The task with the most labels among those that imply the task `name`; the first of several."""
    bases = [other for other in answers if implied(answers[other], answers[name]) is not None]
    return max(bases, key=lambda other: len(answers[other].classes), default=None)


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers in a verdict under dotted names, `tasks.model1.acc`; names and texts are left out."""
    numbers: dict[str, float] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            numbers |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, int | float):
            numbers[prefix + key] = value
    return numbers
