"""The gate's minimum: scores by task, its short form, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pydantic import ValidationError
from test_scores import TWO, answers

from mtl.config.gate import Gate
from mtl.config.reading import first_line, validate
from mtl.errors import UserError
from mtl.release import promotion
from mtl.release.decision import decide
from mtl.tasks import kinds

NO_COMPARISON = {"contradictions": 1.0, "significance": None}


def gate(**asked: object) -> Gate:
    return Gate(**NO_COMPARISON | asked)


def reasons(asked: Gate, labels: list[int], known: list[bool] | None = None) -> tuple[str, ...]:
    candidate = {"kids": answers(("no", "yes"), TWO, labels, known)}
    return decide(asked, candidate, {}, np.arange(0)).reasons


def test_the_short_form_is_the_accuracy_of_the_long_one():
    assert gate(accuracy={"kids": 0.8}).minima == gate(minimum={"kids": {"acc": 0.8}}).minima == {"kids": {"acc": 0.8}}
    both = gate(accuracy={"kids": 0.8}, minimum={"kids": {"auc": 0.6}, "other": {"skill": 0.1}})
    assert both.minima == {"kids": {"acc": 0.8, "auc": 0.6}, "other": {"skill": 0.1}}


def test_each_score_below_its_minimum_is_a_reason():
    labels = [0, 0, 1, 1]  # acc and balanced_acc 0.75, auc 0.75, macro_f1 0.73
    asked = {"acc": 0.75, "balanced_acc": 0.75, "auc": 0.75, "macro_f1": 0.74, "skill": 0.9}
    found = reasons(gate(minimum={"kids": asked}), labels)
    assert [reason.split()[:2] for reason in found] == [["kids:", "macro_f1"], ["kids:", "skill"]]
    assert not reasons(gate(minimum={"kids": {"average_precision": 0.5}}), labels)


def test_a_score_that_is_undefined_does_not_pass():
    (reason,) = reasons(gate(minimum={"kids": {"auc": 0.0}}), [0, 0, 0, 1], known=[True, True, True, False])
    assert "auc" in reason
    with pytest.raises(UserError, match="kids: "):
        reasons(gate(accuracy={"kids": 0.0}), [0, 0, 1, 1], known=[False] * 4)


def test_a_champion_without_a_known_label_is_not_compared():
    candidate = {"kids": answers(("no", "yes"), TWO, [0, 0, 1, 1])}
    champion = {"kids": answers(("no", "yes"), TWO, [0, 0, 1, 1], known=[False] * 4)}
    asked = Gate(accuracy={"kids": 0.5}, contradictions=1.0, significance=0.01)
    (row,) = decide(asked, candidate, champion, np.arange(4)).tasks
    assert (row.images, row.champion) == (None, None)


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({}, ("minimum", "accuracy")),
        ({"minimum": {"kids": {"F1": 0.5}}}, ("minimum.kids", "F1", "acc")),
        ({"minimum": {"kids": {"acc": 1.5}}}, ("minimum.kids.acc",)),
        ({"minimum": {"kids": {}}}, ("minimum.kids",)),
        ({"minimum": {}}, ("minimum",)),
        ({"minimum": {"kids": 0.5}}, ("minimum.kids",)),
        ({"minimum": {"kids": {"acc": 0.5}}, "accuracy": {"kids": 0.5}}, ("accuracy.kids", "minimum.kids.acc")),
    ],
)
def test_a_gate_that_is_none_is_one_line(asked, names):
    with pytest.raises(ValidationError) as error:
        validate(json.loads(json.dumps(NO_COMPARISON | asked)), Gate)
    line = first_line(error.value)
    assert "\n" not in line
    assert all(name in line for name in names), line


@pytest.mark.parametrize("score", ["f1", "r2", "loss", "auc"])
def test_a_score_that_a_task_does_not_have_is_one_line_with_those_that_it_has(score):
    three = answers(("a", "b", "c"), np.eye(3, dtype=np.float32), [0, 1, 2]).task
    fault = kinds.fault_of_score(three, score, "maximize")
    assert "task" in fault
    assert all(name in fault for name in ("balanced_acc", "macro_f1"))
    assert "\n" not in fault
    assert not kinds.fault_of_score(three, "balanced_acc", "maximize")


def test_the_table_names_each_score_and_how_many_are_known_within_80_columns():
    asked = gate(minimum={"kids": {"acc": 0.7, "average_precision": 0.5, "balanced_acc": 0.6}})
    candidate = {"kids": answers(("no", "yes"), TWO, [0, 0, 1, 1], known=[True, True, True, False])}
    decision = decide(asked, candidate, {}, np.arange(0))
    lines = promotion.table(decision, asked, {"tasks.kids.balanced_acc": 0.625}, count=4).splitlines()
    assert any("balanced_acc" in line and "1.0000" in line and "0.6250" in line for line in lines)
    assert "kids 3" in lines[-1]
    assert max(map(len, lines)) <= 80
