"""The verdict over all tasks: the content of metrics/main_evaluate.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl.errors import UserError
from mtl.evaluation import statistics
from mtl.evaluation.answers import Answers, check, finest_base, group_sums, implied
from mtl.tasks import scores


def judge(answers: Mapping[str, Answers]) -> dict[str, Any]:
    """The verdict over all tasks, on the same images.

    Returns:
        `sum_loss` (sum of the tasks' losses), `ave_acc` (mean of their accuracies), `tasks.<task>` as `of_task` gives
        it, and for each task that another one implies `derived.<task>` as `of_derived` gives it.
        `contradiction_rate` is the fraction of images with a contradiction in any of these; it and `derived` are left
        out where no task implies another.

    Raises:
        UserError: a task's labels and answers do not belong together, or are not of the same images as the first's.
    """
    for name, a in answers.items():
        check(name, a)
    first, *others = answers
    for name in others:
        a, b = answers[first], answers[name]
        if len(a.labels) != len(b.labels) or set(a.of_class) != set(b.of_class):
            raise UserError(f"{first} and {name}: labels of different images or classes; `dvc repro` derives them anew")
    tasks = {name: of_task(a) for name, a in answers.items()}
    verdict: dict[str, Any] = {
        "sum_loss": sum(task["loss"] for task in tasks.values()),
        "ave_acc": sum(task["acc"] for task in tasks.values()) / len(tasks),
        "tasks": tasks,
    }
    derived, contradicted = {}, []
    for name, a in answers.items():
        base = finest_base(name, answers)
        if base is not None:
            derived[name], disagree = of_derived(answers[base], a)
            derived[name]["from"] = base
            contradicted.append(disagree)
    if derived:
        verdict |= {"derived": derived, "contradiction_rate": float(np.any(contradicted, axis=0).mean())}
    return verdict


def of_task(a: Answers) -> dict[str, Any]:
    """The verdict on one task by itself.

    Returns:
        `loss`; `acc` and its 95 % Wilson interval `acc_low`, `acc_high`; `nll`; `nll_ratio`, the nll divided by that of
        always answering with the class frequencies of these labels (None where they are of one class); `ece`, the
        expected calibration error; `one_class`: the model gives every image the same label, its training collapsed.
    """
    assert a.loss, "answers without the name of a loss cannot be judged"
    right = a.predicted == a.labels
    low, high = statistics.wilson(right.sum(), len(right))
    nll, of_frequencies = scores.nll(a.probabilities, a.labels), statistics.nll_of_frequencies(a.labels)
    return {
        "loss": scores.loss(a.probabilities, a.labels, a.loss),
        "acc": scores.accuracy(a.probabilities, a.labels),
        "acc_low": low,
        "acc_high": high,
        "nll": nll,
        "nll_ratio": nll / of_frequencies if of_frequencies > 0 else None,
        "ece": statistics.calibration_error(statistics.reliability(a.confidence, right)),
        "one_class": len(np.unique(a.predicted)) == 1,
    }


def of_derived(base: Answers, task: Answers) -> tuple[dict[str, Any], np.ndarray]:
    """Compare what the answers of `base` imply for `task` with the answers of the task's own model.

    Returns:
        `acc` of the summed probabilities of `base`; `gain` of the task's own model over it with its interval, p-value
        and counts (`statistics.paired`); `contradiction_rate`: how often the label that `base` names lies in another
        group than the one that the task's own model names; and, where the two `agree` and where they `contradict`
        each other, `{images, acc, from_acc}`: how many these are, and how often the task's own model and `base` are
        right there, each on its own labels (None where there are none). Second, the images that contradict, bool (N,).
    """
    groups = implied(base, task)
    assert groups is not None  # `finest_base` names none but those
    own, from_base = task.predicted == task.labels, base.predicted == base.labels
    summed = group_sums(base.probabilities, groups).argmax(axis=1) == task.labels
    disagree = groups[base.predicted] != task.predicted

    def accuracies(images: np.ndarray) -> dict[str, Any]:
        some = images.any()
        return {
            "images": int(images.sum()),
            "acc": float(own[images].mean()) if some else None,
            "from_acc": float(from_base[images].mean()) if some else None,
        }

    row = {
        "acc": float(summed.mean()),
        **statistics.paired(own, summed),
        "contradiction_rate": float(disagree.mean()),
        "agree": accuracies(~disagree),
        "contradict": accuracies(disagree),
    }
    return row, disagree


def tables(answers: Mapping[str, Answers]) -> dict[str, dict[str, list[statistics.Row]]]:
    """The tables of `dvc plots`: `confusion`, `reliability` and `per_class` -> task -> rows, led by the task's name."""
    of_tasks: dict[str, dict[str, list[statistics.Row]]] = {"confusion": {}, "reliability": {}, "per_class": {}}
    for name, a in answers.items():
        rows = {
            "confusion": statistics.confusion(a.labels, a.predicted, a.classes),
            "reliability": statistics.reliability(a.confidence, a.predicted == a.labels),
            "per_class": statistics.per_class(a.labels, a.predicted, a.classes),
        }
        for kind, of_kind in rows.items():
            of_tasks[kind][name] = [{"task": name, **row} for row in of_kind]
    return of_tasks


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers in a verdict under dotted names, `tasks.model1.acc`. Texts and None are left out."""
    numbers: dict[str, float] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            numbers |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, int | float):
            numbers[prefix + key] = value
    return numbers
