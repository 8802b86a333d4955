"""The verdict over all tasks: the content of metrics/main_evaluate.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtl.errors import UserError
from mtl.tasks import kinds, relations, statistics
from mtl.tasks.answers import Answers
from mtl.tasks.kinds import Rows, classes
from mtl.tasks.relations import Relation, group_sums


def relate(answers: Mapping[str, Answers]) -> dict[str, Relation]:
    """The relation of each task that another one of these implies."""
    return relations.find_all({name: a.task for name, a in answers.items()})


def contradictions(answers: Mapping[str, Answers]) -> dict[str, np.ndarray]:
    """For each task that another one implies the examples on which the two contradict each other, bool (N,)."""
    related = relate(answers)
    used = {*related, *(relation.base for relation in related.values())}
    return relations.contradictions(related, {name: classes.predicted(answers[name].outputs) for name in used})


def check(name: str, answers: Answers) -> None:
    """Raise UserError where labels, outputs and names are not of one task, or the outputs cannot be its answers."""
    shape, examples, names = answers.outputs.shape, len(answers.labels), len(answers.task.names)
    if shape != (examples, names) or not examples:
        raise UserError(f"{name}: the model's answers have shape {shape} for {examples} examples and {names} outputs")
    if answers.task.kind == "classes" and answers.labels.max() >= names:
        raise UserError(
            f"{name}: label {answers.labels.max()} is beyond its {names} classes: the labels of another task?"
        )
    if fault := kinds.find(answers.task.kind).fault(answers.outputs):
        raise UserError(f"{name}: {fault}")


def judge(answers: Mapping[str, Answers]) -> dict[str, Any]:
    """The verdict over all tasks, on the same examples.

    Returns:
        `sum_loss` (sum of the tasks' losses), `ave_acc` (mean accuracy of the tasks of the kind `classes`, left out
        where there is none), `ave_skill` (mean skill of all whose skill is defined), `tasks.<task>` as `of_task` gives
        it, and for each task that another one implies `derived.<task>` as `of_derived` gives it.
        `contradiction_rate` is the fraction of examples with a contradiction in any of these; it and `derived` are
        left out where no task implies another.

    Raises:
        UserError: a task's labels and answers do not belong together, or are not of the same examples as the first's.
    """
    for name, a in answers.items():
        check(name, a)
    first, *others = answers
    for name in others:
        if len(answers[first].labels) != len(answers[name].labels):
            raise UserError(f"{first} and {name}: labels of different examples; `dvc repro` derives them anew")
    tasks = {name: of_task(a) for name, a in answers.items()}
    verdict: dict[str, Any] = {"sum_loss": sum(task["loss"] for task in tasks.values()), "tasks": tasks}
    accuracies = [task["acc"] for task in tasks.values() if task["kind"] == "classes"]
    if accuracies:
        verdict["ave_acc"] = sum(accuracies) / len(accuracies)
    skills = [task["skill"] for task in tasks.values() if task["skill"] is not None]
    if skills:
        verdict["ave_skill"] = sum(skills) / len(skills)
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
    """The verdict on one task by itself, on the examples of which a label is known.

    Returns:
        `kind`; `loss`; the figures of the kind's `judge`, with the 95 % interval of the primary score, `<score>_low`
        and `<score>_high`; `one_class`: the model gives every example the same answer, its training collapsed; and
        `examples`: how many these are.
    """
    a, kind = answers.judged(), kinds.find(answers.task.kind)
    primary, (low, high) = next(iter(kind.SCORES)), kind.interval(a)
    return {
        "kind": a.task.kind,
        "loss": kind.loss_of(a),
        **kind.judge(a),
        f"{primary}_low": low,
        f"{primary}_high": high,
        "one_class": kind.one_answer(a.outputs),
        "examples": len(a.labels),
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
    summed = classes.predicted(group_sums(base.outputs, relation)) == own.labels
    own_right, base_right, both_known = classes.right(own), classes.right(base), own.is_known & base.is_known

    def accuracies(examples: np.ndarray) -> dict[str, Any]:
        known = examples & both_known
        some = known.any()
        return {
            "images": int(examples.sum()),
            "acc": float(own_right[known].mean()) if some else None,
            "from_acc": float(base_right[known].mean()) if some else None,
        }

    return {
        "from": relation.base,
        "acc": float(summed[own.is_known].mean()),
        **statistics.paired(own_right[own.is_known], summed[own.is_known]),
        "contradiction_rate": float(contradicted.mean()),
        "agree": accuracies(~contradicted),
        "contradict": accuracies(contradicted),
    }


def tables(answers: Mapping[str, Answers]) -> dict[str, dict[str, Rows]]:
    """The tables of `dvc plots`: folder -> task -> rows, led by the task's name."""
    of_tasks: dict[str, dict[str, Rows]] = {}
    for name, a in answers.items():
        for table, rows in kinds.find(a.task.kind).tables(a.judged()).items():
            of_tasks.setdefault(table, {})[name] = [{"task": name, **row} for row in rows]
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
