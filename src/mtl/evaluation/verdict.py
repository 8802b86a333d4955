"""The verdict over all tasks: the content of metrics/main_evaluate.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl.errors import UserError
from mtl.evaluation import statistics
from mtl.evaluation.answers import Answers, check, contradictions, relate
from mtl.tasks import scores
from mtl.tasks.relations import Relation, group_sums

MOST_IN_CONFUSION = 100  # classes; a matrix of more can be neither drawn nor read


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
        if len(answers[first].labels) != len(answers[name].labels):
            raise UserError(f"{first} and {name}: labels of different images; `dvc repro` derives them anew")
    tasks = {name: of_task(a) for name, a in answers.items()}
    verdict: dict[str, Any] = {
        "sum_loss": sum(task["loss"] for task in tasks.values()),
        "ave_acc": sum(task["acc"] for task in tasks.values()) / len(tasks),
        "tasks": tasks,
    }
    contradicted = contradictions(answers)
    derived = {
        name: of_derived(answers[relation.base], answers[name], relation, contradicted[name])
        for name, relation in relate(answers).items()
    }
    if derived:
        rate = float(np.any(list(contradicted.values()), axis=0).mean())
        verdict |= {"derived": derived, "contradiction_rate": rate}
    return verdict


def of_task(answers: Answers) -> dict[str, Any]:
    """The verdict on one task by itself, on the examples whose label is known.

    Returns:
        `loss`; `acc` and its 95 % Wilson interval `acc_low`, `acc_high`; `nll`; `nll_ratio`, the nll divided by that of
        always answering with the class frequencies of these labels (None where they are of one class); `ece`, the
        expected calibration error; `one_class`: the model gives every image the same label, its training collapsed;
        `examples`: how many these are; and the scores of `scores.of_classes`: `balanced_acc`, `macro_f1`, `skill` and,
        of two classes, `auc` and `average_precision`.
    """
    a = answers.judged()
    low, high = statistics.wilson(a.right.sum(), len(a.right))
    nll, of_frequencies = scores.nll(a.probabilities, a.labels), statistics.nll_of_frequencies(a.labels)
    return {
        "loss": scores.loss(a.probabilities, a.labels, a.loss),
        "acc": scores.accuracy(a.probabilities, a.labels),
        "acc_low": low,
        "acc_high": high,
        "nll": nll,
        "nll_ratio": nll / of_frequencies if of_frequencies > 0 else None,
        "ece": statistics.calibration_error(statistics.reliability(a.confidence, a.right)),
        "one_class": len(np.unique(a.predicted)) == 1,
        "examples": len(a.labels),
        **scores.of_classes(a.probabilities, a.labels, a.task.frequencies),
    }


def of_derived(base: Answers, own: Answers, relation: Relation, contradicted: np.ndarray) -> dict[str, Any]:
    """Compare what the answers of `base` imply for a task with the answers of the task's `own` model.

    Args:
        base: answers to the same examples.
        own: answers of the task's own model.
        relation: what the labels of `base` imply.
        contradicted: the examples on which the two contradict each other, bool (N,).

    Returns:
        `from`: the base; `acc` of the summed probabilities of `base`; `gain` of the task's own model over it with its
        interval, p-value and counts (`statistics.paired`), these on the examples whose label is known;
        `contradiction_rate` among all examples; and, where the two `agree` and where they `contradict` each other,
        `{images, acc, from_acc}`: how many these are, and how often the task's own model and `base` are right there,
        each on its own labels where both are known (None where there are none).
    """
    summed = group_sums(base.probabilities, relation).argmax(axis=1) == own.labels
    both_known = own.is_known & base.is_known

    def accuracies(examples: np.ndarray) -> dict[str, Any]:
        known = examples & both_known
        some = known.any()
        return {
            "images": int(examples.sum()),
            "acc": float(own.right[known].mean()) if some else None,
            "from_acc": float(base.right[known].mean()) if some else None,
        }

    return {
        "from": relation.base,
        "acc": float(summed[own.is_known].mean()),
        **statistics.paired(own.right[own.is_known], summed[own.is_known]),
        "contradiction_rate": float(contradicted.mean()),
        "agree": accuracies(~contradicted),
        "contradict": accuracies(contradicted),
    }


def tables(answers: Mapping[str, Answers]) -> dict[str, dict[str, list[statistics.Row]]]:
    """The tables of `dvc plots`: `confusion`, `reliability` and `per_class` -> task -> rows, led by the task's name.

    Of a task with more than MOST_IN_CONFUSION classes there is no confusion matrix.
    """
    of_tasks: dict[str, dict[str, list[statistics.Row]]] = {"confusion": {}, "reliability": {}, "per_class": {}}
    for name, all_answers in answers.items():
        a = all_answers.judged()
        rows = {
            "reliability": statistics.reliability(a.confidence, a.right),
            "per_class": statistics.per_class(a.labels, a.predicted, a.task.names),
        }
        if len(a.task.names) <= MOST_IN_CONFUSION:
            rows["confusion"] = statistics.confusion(a.labels, a.predicted, a.task.names)
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
