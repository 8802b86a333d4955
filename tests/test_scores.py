"""The scores in which rare classes count, by hand and as invariants; many classes; gaps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl import evaluation
from mtl.report import tables
from mtl.study.results import Verdict
from mtl.tasks import scores
from mtl.tasks.answers import Answers
from mtl.tasks.spec import TaskSpec, label_dtype
from mtl.text import aligned

TWO = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]], np.float32)


def answers(names: tuple[str, ...], p: np.ndarray, labels: list[int], known: list[bool] | None = None) -> Answers:
    """Of a task whose training labels had the names equally often."""
    spec = TaskSpec(
        name="task",
        columns=("class",),
        names=names,
        groups={name: name for name in names},
        frequencies=(1 / len(names),) * len(names),
    )
    y = np.array(labels, label_dtype(len(names)))
    return Answers(spec, y, p, "categorical_crossentropy", None if known is None else np.array(known))


def test_scores_by_hand():
    found = scores.of_classes(TWO, np.array([0, 0, 1, 1]), (0.5, 0.5))
    # Answers 0, 0, 1, 0: the first class is right on 2 of 2, the second on 1 of 2.
    assert found["balanced_acc"] == pytest.approx((1 + 1 / 2) / 2)
    assert found["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    # Of the four pairs of a positive (.8, .3) and a negative (.1, .4), three are in order.
    assert found["auc"] == pytest.approx(3 / 4)
    assert found["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    nll = -sum(map(math.log, (0.9, 0.6, 0.8, 0.3))) / 4
    assert found["skill"] == pytest.approx(1 - nll / math.log(2), rel=1e-5)


def test_what_is_undefined_is_none_or_left_out():
    one_class = scores.of_classes(TWO, np.zeros(4, int), (0.5, 0.5))
    assert (one_class["auc"], one_class["average_precision"]) == (None, None)
    assert one_class["balanced_acc"] == 0.75
    three = scores.of_classes(np.eye(3, dtype=np.float32), np.arange(3), (0.2, 0.3, 0.5))
    assert set(three) == {"balanced_acc", "macro_f1", "skill"}
    assert three["skill"] == pytest.approx(1, abs=1e-6)


@given(st.lists(st.integers(0, 1), min_size=1, max_size=30), st.floats(0.05, 0.95))
def test_knowing_the_frequencies_alone_is_no_skill(labels, share):
    constant = np.tile(np.array([1 - share, share]), (len(labels), 1))
    found = scores.of_classes(constant, np.array(labels), (1 - share, share))
    assert found["skill"] == pytest.approx(0, abs=1e-9)
    if len(set(labels)) == 2:
        assert found["balanced_acc"] == 0.5
        assert found["auc"] == 0.5


def test_the_verdict_has_them_beside_the_others_on_what_is_known():
    gaps = answers(("no", "yes"), TWO, [0, 0, 1, 0], known=[True, True, True, False])
    (task,) = evaluation.judge({"task": gaps})["tasks"].values()
    assert task["examples"] == 3
    assert task["acc"] == task["balanced_acc"] == task["macro_f1"] == task["auc"] == 1
    whole = answers(("no", "yes"), TWO[:3], [0, 0, 1])
    assert evaluation.judge({"task": whole})["tasks"]["task"] == task


def test_a_thousand_classes_are_judged_without_a_confusion_matrix():
    names = tuple(f"c{index:04d}" for index in range(1000))
    labels = np.random.default_rng(0).integers(1000, size=3000)
    p = np.full((3000, 1000), 1e-4, np.float32)
    p[np.arange(3000), np.where(np.arange(3000) % 3, labels, 0)] = 0.9
    many = {"task": answers(names, p, labels.tolist())}
    verdict, drawn = evaluation.judge(many), evaluation.tables(many)
    assert 0.6 < verdict["tasks"]["task"]["balanced_acc"] < 0.7
    assert "confusion" not in drawn
    assert len(drawn["per_class"]["task"]) == 1000
    hundred = {"task": answers(names[:100], p[:9, :100], [1] * 9)}
    assert len(evaluation.tables(hundred)["confusion"]["task"]) == 100**2


def test_the_table_of_scores_fits_a_terminal():
    task = {"loss": 0.7, "acc": 0.8, "nll": 0.7, "examples": 12_345, "skill": -0.5, "balanced_acc": 0.5}
    task |= {"macro_f1": 0.5, "auc": 0.5, "average_precision": 0.5}
    verdict = Verdict.model_validate({"sum_loss": 1, "ave_acc": 1, "tasks": {"a_rather_long": task, "b": task}})
    header, *rows = tables.scores(verdict)
    assert rows[0][1:3] == ["12,345", "-0.5000"]
    assert max(map(len, aligned(header, rows).splitlines())) <= 80
