"""The joint verdict against numbers worked out by hand."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from conftest import regrouped, task_spec
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mtl import evaluation
from mtl.errors import UserError
from mtl.evaluation import examples
from mtl.tasks import relations, scores
from mtl.tasks.answers import Answers

OF_FINE = {"cat": "cat", "dog": "dog", "ship": "ship"}
OF_COARSE = {"cat": "animal", "dog": "animal", "ship": "vehicle"}
RELATED = regrouped(task_spec("model1", OF_FINE), task_spec("model2", OF_COARSE))


def fine(probabilities, labels=(0, 1, 2, 0)) -> Answers:
    p = np.array(probabilities, np.float32)
    return Answers(task_spec("model1", OF_FINE), np.array(labels, np.uint8), p, "categorical_crossentropy")


def coarse(probabilities, labels=(0, 0, 1, 0), loss="categorical_crossentropy") -> Answers:
    p = np.array(probabilities, np.float32)
    return Answers(task_spec("model2", OF_COARSE), np.array(labels, np.uint8), p, loss)


# cat, dog (called a cat), ship, cat (called a ship, though cat + dog together are likelier)
FINE = [[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [0.25, 0.25, 0.5], [0.3, 0.3, 0.4]]
# animal, vehicle (wrong), vehicle, animal
COARSE = [[0.5, 0.25], [0.25, 0.5], [0.25, 0.5], [0.75, 0.25]]


def test_loss_and_accuracy_by_hand():
    a = fine(FINE)
    assert scores.accuracy(a.outputs, a.labels) == 0.5
    expected = -(math.log(0.5) + math.log(0.25) + math.log(0.5) + math.log(0.3)) / 4
    assert scores.loss(a.outputs, a.labels, "categorical_crossentropy") == pytest.approx(expected, rel=1e-6)


def test_binary_loss_asks_every_output_and_nll_normalises():
    a = coarse(COARSE, loss="binary_crossentropy")
    rows = [(0.5, 0.25), (0.25, 0.5), (0.5, 0.25), (0.75, 0.25)]  # p(right output), p(wrong output)
    binary = -sum(math.log(right) + math.log(1 - wrong) for right, wrong in rows) / 8
    assert scores.loss(a.outputs, a.labels, "binary_crossentropy") == pytest.approx(binary, rel=1e-6)
    nll = -sum(math.log(right / (right + wrong)) for right, wrong in rows) / 4
    assert scores.nll(a.outputs, a.labels) == pytest.approx(nll, rel=1e-6)


@pytest.mark.parametrize("name", ["categorical_crossentropy", "binary_crossentropy"])
@pytest.mark.usefixtures("tensorflow")
def test_losses_are_those_of_keras(name):
    import keras

    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(5), size=50).astype(np.float32)
    y = rng.integers(5, size=50)
    given_by_keras = float(keras.losses.get(name)(np.eye(5, dtype=np.float32)[y], p).numpy().mean())
    assert scores.loss(p, y, name) == pytest.approx(given_by_keras, rel=1e-5)


def test_verdict_by_hand():
    verdict = evaluation.judge({"model1": fine(FINE), "model2": coarse(COARSE)}, RELATED)
    losses = [verdict["tasks"][task]["loss"] for task in ("model1", "model2")]
    assert verdict["sum_loss"] == pytest.approx(sum(losses))
    assert verdict["ave_acc"] == pytest.approx((0.5 + 0.75) / 2)
    # Summed: animal .75, .75, .5 (a tie goes to the first), .6: three of four right.
    derived = verdict["derived"]["model2"]
    assert (derived["from"], derived["acc"], derived["contradiction_rate"]) == ("model1", 0.75, 0.5)
    # Its own model is wrong on image 2 alone, the sums on image 3 alone.
    assert (derived["only_own"], derived["only_derived"], derived["gain"], derived["p_value"]) == (1, 1, 0, 1)
    # model1 names cat, cat, ship, ship; model2 animal, vehicle, vehicle, animal: they differ on images 2 and 4.
    assert verdict["contradiction_rate"] == 0.5
    # Images 1 and 3 are right everywhere; of 2 and 4 model2 has the last, model1 (on its own labels) none.
    assert derived["agree"] == {"images": 2, "acc": 1, "from_acc": 1}
    assert derived["contradict"] == {"images": 2, "acc": 0.5, "from_acc": 0}


def test_models_that_never_contradict_each_other_have_no_accuracy_there():
    agreeing = [[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9]]
    verdict = evaluation.judge({"model1": fine(FINE), "model2": coarse(agreeing)}, RELATED)
    assert verdict["derived"]["model2"]["contradict"] == {"images": 0, "acc": None, "from_acc": None}
    assert "derived.model2.contradict.acc" not in evaluation.flat(verdict)


def test_nll_ratio_is_one_for_a_model_that_knows_the_frequencies_alone():
    labels = (0, 0, 1, 0)
    knows_frequencies = evaluation.judge({"model2": coarse([[0.75, 0.25]] * 4, labels)})["tasks"]["model2"]
    assert knows_frequencies["nll_ratio"] == pytest.approx(1)
    better = evaluation.judge({"model2": coarse([[0.9, 0.1]] * 2 + [[0.1, 0.9], [0.9, 0.1]], labels)})
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert better["tasks"]["model2"]["nll_ratio"] == pytest.approx(-math.log(0.9) / entropy, rel=1e-6)
    assert evaluation.judge({"model2": coarse(COARSE, [0] * 4)})["tasks"]["model2"]["nll_ratio"] is None


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"model2": coarse(COARSE, (0, 0, 1))}, "model2: the model's answers have shape (4, 2) for 3 examples"),
        ({"model2": coarse(FINE)}, "model2: the model's answers have shape (4, 3) for 4 examples and 2"),
        ({"model2": coarse(np.zeros((0, 2)), ())}, "model2: the model's answers have shape (0, 2) for 0 examples"),
        ({"model2": coarse(COARSE, (0, 1, 2, 0))}, "model2: label 2 is beyond its 2 classes"),
        (
            {"model2": coarse([[-1.5, 3]] * 4)},
            "model2: the model's outputs are from -1.5 to 3 and must be probabilities",
        ),
        ({"model2": coarse([[0.5, math.nan]] * 4)}, "model2: the model's outputs are from nan to nan"),
        (
            {"model1": fine(FINE), "model2": coarse(COARSE[:3], (0, 0, 1))},
            "model1 and model2: labels of different examples",
        ),
    ],
)
def test_answers_that_do_not_fit_their_task_are_one_line(answers, message):
    with pytest.raises(UserError, match="^" + re.escape(message)):
        evaluation.judge(answers)


def test_galleries_are_led_by_the_surest():
    a, b = fine(FINE), coarse(COARSE)
    assert examples.mistakes(a, 9).tolist() == [1, 3]  # 50 and 40 % sure
    assert examples.mistakes(a, 1).tolist() == [1]
    # Image 2: the less sure of the two is 50 % sure; image 4: 40 %.
    contradicted = relations.contradicted_by(RELATED, {"model1": a, "model2": b})["model1", "model2"]
    assert examples.contradictions(a, b, contradicted, 9).tolist() == [1, 3]


def test_tables_name_the_task_and_its_classes():
    tables = evaluation.tables({"model1": fine(FINE), "model2": coarse(COARSE)})
    assert tables["confusion"]["model2"] == [
        {"task": "model2", "actual": "animal", "predicted": "animal", "images": 2, "share": 2 / 3},
        {"task": "model2", "actual": "animal", "predicted": "vehicle", "images": 1, "share": 1 / 3},
        {"task": "model2", "actual": "vehicle", "predicted": "animal", "images": 0, "share": 0},
        {"task": "model2", "actual": "vehicle", "predicted": "vehicle", "images": 1, "share": 1},
    ]
    assert [(row["class"], row["images"], row["acc"]) for row in tables["per_class"]["model1"]] == [
        ("cat", 2, 0.5),
        ("dog", 1, 0),
        ("ship", 1, 1),
    ]


def test_a_model_with_one_answer_is_called_out():
    verdict = evaluation.judge({"model2": coarse([[0.9, 0.1]] * 4)})
    assert verdict["tasks"]["model2"]["one_class"] is True
    assert "derived" not in verdict
    assert "contradiction_rate" not in verdict


def test_with_gaps_each_model_is_judged_on_what_is_known():
    known = np.array([True, True, False, True])
    own = replace(coarse(COARSE, (0, 0, 0, 0)), known=known)
    verdict = evaluation.judge({"model1": fine(FINE), "model2": own}, RELATED)
    assert verdict["tasks"]["model2"]["acc"] == pytest.approx(2 / 3)
    assert verdict["tasks"]["model2"]["acc"] == evaluation.judge({"model2": own.judged()})["tasks"]["model2"]["acc"]
    derived = verdict["derived"]["model2"]
    assert derived["acc"] == 1  # of the three that are known
    assert derived["contradiction_rate"] == verdict["contradiction_rate"] == 0.5  # of all four
    assert derived["agree"] == {"images": 2, "acc": 1, "from_acc": 1}  # the third is not known
    assert sum(row["images"] for row in evaluation.tables({"model2": own})["confusion"]["model2"]) == 3
    assert examples.mistakes(own, 9).tolist() == [1]


PROBABILITIES = hnp.arrays(np.float64, (7, 4), elements=st.floats(0.01, 1)).map(lambda p: p / p.sum(1, keepdims=True))


@given(PROBABILITIES, st.integers(0, 2**32 - 1))
def test_order_of_the_images_does_not_matter(p, seed):
    rng = np.random.default_rng(seed)
    y, order = rng.integers(4, size=7), rng.permutation(7)
    for name in ("categorical_crossentropy", "binary_crossentropy"):
        assert scores.loss(p, y, name) == pytest.approx(scores.loss(p[order], y[order], name))
    assert scores.accuracy(p, y) == scores.accuracy(p[order], y[order])


@given(PROBABILITIES, hnp.arrays(np.float64, (7, 2), elements=st.floats(0, 1)), st.lists(st.integers(0, 3), min_size=7))
def test_the_parts_of_a_verdict_agree(p, q, labels):
    of_fine = {c: c for c in "abcd"}
    of_coarse = {"a": "x", "b": "y", "c": "x", "d": "y"}
    y = np.array(labels[:7])
    verdict = evaluation.judge(
        {
            "fine": Answers(task_spec("fine", of_fine), y, p, "categorical_crossentropy"),
            "coarse": Answers(task_spec("coarse", of_coarse), y % 2, q, "binary_crossentropy"),
        },
        regrouped(task_spec("fine", of_fine), task_spec("coarse", of_coarse)),
    )
    derived, own = verdict["derived"]["coarse"], verdict["tasks"]["coarse"]
    assert derived["agree"]["images"] + derived["contradict"]["images"] == 7
    assert derived["contradict"]["images"] / 7 == pytest.approx(verdict["contradiction_rate"])
    assert derived["gain"] == pytest.approx(own["acc"] - derived["acc"])
    assert derived["gain_low"] <= derived["gain"] <= derived["gain_high"]
    parts = [derived[part] for part in ("agree", "contradict")]
    assert sum(part["images"] * (part["acc"] or 0) for part in parts) == pytest.approx(7 * own["acc"])
    for task in verdict["tasks"].values():
        assert 0 <= task["acc_low"] <= task["acc"] <= task["acc_high"] <= 1
        assert 0 <= task["ece"] <= 1


def test_flat_names_numbers_with_dots():
    assert evaluation.flat({"a": {"b": 1.5, "c": "text", "e": None}, "d": 2}) == {"a.b": 1.5, "d": 2}
