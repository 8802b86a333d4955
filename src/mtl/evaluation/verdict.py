"""The verdict over all tasks: the content of metrics/main_evaluate.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from mtl.errors import UserError
from mtl.tasks import calibration, kinds, relations, statistics
from mtl.tasks.answers import Answers
from mtl.tasks.kinds import Rows, classes
from mtl.tasks.relations import UNRELATED, Relations


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


def judge(
    answers: Mapping[str, Answers], related: Relations = UNRELATED, costs: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """The verdict over all tasks, on the same examples.

    Args:
        answers: of each task's model.
        related: the relations between the tasks, as `relations.choose` returns them.
        costs: the multiply-adds of each task's model per image, where they are known.

    Returns:
        `sum_loss` (sum of the tasks' losses), `ave_acc` (mean accuracy of the tasks of the kind `classes`, left out
        where there is none), `ave_skill` (mean skill of all whose skill is defined), `tasks.<task>` as `of_task` gives
        it, for each task with a derived answer `derived.<task>` as `of_derived` gives it, and for each whose weights
        are fitted `combined.<task>` as `of_combined` gives it.
        `contradiction_rate` is the fraction of examples on which any two models contradict each other; it is left out
        where no labels can, `derived` where no answer is derived, and `combined` where none is combined.

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
    contradicted = relations.contradicted_by(related, answers)
    derived = {
        target: of_derived(answers, target, related, contradicted.get((base, target)))
        for target, base in related.among(answers).derived.items()
    }
    if derived:
        verdict["derived"] = derived
    combined = {target: of_combined(answers, target, related, costs) for target in related.among(answers).weights}
    if combined:
        verdict["combined"] = combined
    if contradicted:
        verdict["contradiction_rate"] = float(np.any(list(contradicted.values()), axis=0).mean())
    return verdict


def judge_shifted(answers: Mapping[str, Answers], related: Relations) -> dict[str, Any]:
    """The verdict on a shifted test set: `judge` over the tasks of which a label is known there, and `examples`, N."""
    known = {task: a for task, a in answers.items() if a.has_label.any()}
    examples = len(next(iter(answers.values())).labels)
    return {"examples": examples, **judge(known, related.among(known))}


def of_task(answers: Answers) -> dict[str, Any]:
    """The verdict on one task by itself, on the examples of which a label is known.

    Returns:
        `kind`; `unit`, where it has one; `loss`; the figures of the kind's `judge`, with the 95 % interval of the
        primary score, `<score>_low` and `<score>_high`; `one_class`: the model gives every example the same answer, its
        training collapsed; `examples`: how many these are; and, of a model calibrated by a temperature,
        `before_calibration`: `nll` and `ece` without it.
    """
    a, kind = answers.judged(), kinds.find(answers.task.kind)
    primary, (low, high) = next(iter(kind.SCORES)), kind.interval(a)
    return {
        "kind": a.task.kind,
        **({"unit": a.task.unit} if a.task.unit else {}),
        "loss": kind.loss_of(a),
        **kind.judge(a),
        f"{primary}_low": low,
        f"{primary}_high": high,
        "one_class": kind.one_answer(a.outputs),
        "examples": len(a.labels),
        **_before_calibration(a),
    }


def _before_calibration(a: Answers) -> dict[str, Any]:
    """`before_calibration`: `nll`, the kind's loss in nats, and `ece`; nothing where no temperature was fitted."""
    before, kind = calibration.before(a), kinds.find(a.task.kind)
    if before is None:
        return {}
    figures = {"nll": kind.loss_of(replace(before, loss="auto")), "ece": kind.judge(before)["ece"]}
    return {"before_calibration": figures}


def of_derived(
    answers: Mapping[str, Answers], target: str, related: Relations, contradicted: np.ndarray | None
) -> dict[str, Any]:
    """Compare the answer that is derived for a task with that of the task's own model, where its label is known.

    Args:
        answers: of all models, to the same examples.
        target: the task.
        related: has its base, and what the classes of that imply.
        contradicted: the examples on which the two models contradict each other, bool (N,); None: they never can.

    Returns:
        `from`: the base; the primary score of the derived answer, of `classes` `acc`; `gain` of the task's own model
        over it with its interval and p-value: of `classes` the difference of the accuracies (`statistics.paired`, also
        its counts), else that of the mean utilities (`statistics.paired_means`), and then also the `skill` of the
        derived answer. Where labels can contradict each other also `contradiction_rate` among all examples, and, where
        the two `agree` and where they `contradict` each other, `{images, acc, from_acc}`: how many these are, and how
        often the task's own model and the base's are right there, each on its own labels where both are known (None
        where there are none).
    """
    base, own = related.derived[target], answers[target]
    outputs = relations.derive(related.of(base, target), answers[base].outputs, own.task)
    implied, kind, known = replace(own, outputs=outputs), kinds.find(own.task.kind), own.has_label
    primary = next(iter(kind.SCORES))
    if own.task.kind != "classes":
        figures = kind.judge(implied.judged())
        gains = statistics.paired_means(kind.utility(own)[known], kind.utility(implied)[known])
        return {"from": base, primary: figures[primary], "skill": figures["skill"], **gains}
    own_right, base_right = classes.right(own), classes.right(answers[base])
    implied_right, both_known = classes.right(implied), known & answers[base].has_label

    def accuracies(examples: np.ndarray) -> dict[str, Any]:
        judged = examples & both_known
        some = judged.any()
        return {
            "images": int(examples.sum()),
            "acc": float(own_right[judged].mean()) if some else None,
            "from_acc": float(base_right[judged].mean()) if some else None,
        }

    if contradicted is None:
        contradicted = np.zeros(len(known), bool)
    return {
        "from": base,
        "acc": float(implied_right[known].mean()),
        **statistics.paired(own_right[known], implied_right[known]),
        "contradiction_rate": float(contradicted.mean()),
        "agree": accuracies(~contradicted),
        "contradict": accuracies(contradicted),
    }


def of_combined(
    answers: Mapping[str, Answers], target: str, related: Relations, costs: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Compare the combined answer to a task with its own and the derived one, where its label is known.

    Args:
        answers: of all models, to the same examples, on which the weights were not fitted.
        target: the task.
        related: has its base and the weights.
        costs: the multiply-adds of each task's model per image, where they are known.

    Returns:
        `from`: the base; `own_weight` and `derived_weight`; the primary score of the combined answer, and its `nll`,
        the mean of the kind's `losses`. `over_own` and `over_derived`: what the combined answer has more of, `gain`
        with its interval and p-value as `of_derived` has it, and how much smaller its loss is, `nll_gain` with
        `nll_gain_low`, `nll_gain_high` and `nll_p_value` (`statistics.paired_means`): above 0 it is better.
        `multiply_adds`: those of `own`, of the base's model for the `derived` answer, and of both for the `combined`.
    """
    base, own = related.derived[target], answers[target].judged()
    known, kind = answers[target].has_label, kinds.find(own.task.kind)
    outputs = {task: answers[task].outputs[known] for task in (target, base)}
    implied = replace(own, outputs=relations.derive(related.of(base, target), outputs[base], own.task))
    both = replace(own, outputs=relations.combined(related, outputs, own.task))

    def gains(other: Answers, name: str) -> dict[str, Any]:
        if own.task.kind == "classes":
            figures = statistics.paired(classes.right(both), classes.right(other), ("combined", name))
        else:
            figures = statistics.paired_means(kind.utility(both), kind.utility(other))
        less = statistics.paired_means(-kind.losses(both), -kind.losses(other))
        return figures | {f"nll_{key}": value for key, value in less.items()}

    primary, weights = next(iter(kind.SCORES)), related.weights[target]
    verdict = {
        "from": base,
        "own_weight": weights[0],
        "derived_weight": weights[1],
        primary: kind.judge(both)[primary],
        "nll": kind.loss_of(replace(both, loss="auto")),
        "over_own": gains(own, "own"),
        "over_derived": gains(implied, "derived"),
    }
    if costs is not None:
        spent = {"own": costs[target], "derived": costs[base], "combined": costs[target] + costs[base]}
        verdict["multiply_adds"] = spent
    return verdict


def tables(answers: Mapping[str, Answers]) -> dict[str, dict[str, Rows]]:
    """The tables of `dvc plots`: folder -> task -> rows, led by the task's name."""
    of_tasks: dict[str, dict[str, Rows]] = {}
    for name, a in answers.items():
        drawn, before = kinds.find(a.task.kind).tables(a.judged()), calibration.before(a.judged())
        if before is not None:
            earlier = kinds.find(a.task.kind).tables(before)["reliability"]
            drawn["reliability"] += [{**row, "answers": "before calibration"} for row in earlier]
        for table, rows in drawn.items():
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
