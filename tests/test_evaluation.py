"""The joint verdict against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mtl import evaluation, scores
from mtl.evaluation import Answers

OF_FINE = {"cat": "cat", "dog": "dog", "ship": "ship"}
OF_COARSE = {"cat": "animal", "dog": "animal", "ship": "vehicle"}


def fine(probabilities, labels=(0, 1, 2, 0)) -> Answers:
    p = np.array(probabilities, np.float32)
    return Answers(np.array(labels, np.uint8), p, ("cat", "dog", "ship"), OF_FINE, "categorical_crossentropy")


def coarse(probabilities, labels=(0, 0, 1, 0), loss="categorical_crossentropy") -> Answers:
    return Answers(
        np.array(labels, np.uint8), np.array(probabilities, np.float32), ("animal", "vehicle"), OF_COARSE, loss
    )


# cat, dog (called a cat), ship, cat (called a ship, though cat + dog together are likelier)
FINE = [[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [0.25, 0.25, 0.5], [0.3, 0.3, 0.4]]
# animal, vehicle (wrong), vehicle, animal
COARSE = [[0.5, 0.25], [0.25, 0.5], [0.25, 0.5], [0.75, 0.25]]


def test_loss_and_accuracy_by_hand():
    a = fine(FINE)
    assert scores.accuracy(a.probabilities, a.labels) == 0.5
    expected = -(math.log(0.5) + math.log(0.25) + math.log(0.5) + math.log(0.3)) / 4
    assert scores.loss(a.probabilities, a.labels, "categorical_crossentropy") == pytest.approx(expected, rel=1e-6)


def test_binary_loss_asks_every_output_and_nll_normalises():
    a = coarse(COARSE, loss="binary_crossentropy")
    rows = [(0.5, 0.25), (0.25, 0.5), (0.5, 0.25), (0.75, 0.25)]  # p(right output), p(wrong output)
    binary = -sum(math.log(right) + math.log(1 - wrong) for right, wrong in rows) / 8
    assert scores.loss(a.probabilities, a.labels, "binary_crossentropy") == pytest.approx(binary, rel=1e-6)
    nll = -sum(math.log(right / (right + wrong)) for right, wrong in rows) / 4
    assert scores.nll(a.probabilities, a.labels) == pytest.approx(nll, rel=1e-6)


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
    verdict = evaluation.judge({"model1": fine(FINE), "model2": coarse(COARSE)})
    losses = [verdict["tasks"][task]["loss"] for task in ("model1", "model2")]
    assert verdict["sum_loss"] == pytest.approx(sum(losses))
    assert verdict["ave_acc"] == pytest.approx((0.5 + 0.75) / 2)
    # Summed: animal .75, .75, .5 (a tie goes to the first), .6: three of four right.
    assert verdict["derived"]["model2"] == {"from": "model1", "acc": 0.75, "contradiction_rate": 0.5}
    # model1 names cat, cat, ship, ship; model2 animal, vehicle, vehicle, animal: they differ on images 2 and 4.
    assert verdict["contradiction_rate"] == 0.5


def test_a_model_with_one_answer_is_called_out():
    verdict = evaluation.judge({"model2": coarse([[0.9, 0.1]] * 4)})
    assert verdict["tasks"]["model2"]["one_class"] is True
    assert "derived" not in verdict
    assert "contradiction_rate" not in verdict


def test_nothing_is_implied_where_a_label_says_nothing_certain():
    crossing = {"cat": "left", "dog": "right", "ship": "left"}
    other = Answers(np.zeros(4, np.uint8), np.array(COARSE), ("left", "right"), crossing, "categorical_crossentropy")
    assert evaluation.implied(coarse(COARSE), other) is None
    assert evaluation.implied(other, fine(FINE)) is None
    assert evaluation.implied(coarse(COARSE), coarse(COARSE)) is None
    assert evaluation.implied(fine(FINE), other).tolist() == [0, 1, 0]


PROBABILITIES = hnp.arrays(np.float64, (7, 4), elements=st.floats(0.01, 1)).map(lambda p: p / p.sum(1, keepdims=True))


@given(PROBABILITIES)
def test_group_sums_keep_the_total(p):
    sums = evaluation.group_sums(p, np.array([0, 1, 0, 2]))
    assert sums.shape == (7, 3)
    np.testing.assert_allclose(sums.sum(axis=1), 1)
    np.testing.assert_allclose(sums[:, 0], p[:, 0] + p[:, 2])


@given(PROBABILITIES, st.integers(0, 2**32 - 1))
def test_order_of_the_images_does_not_matter(p, seed):
    rng = np.random.default_rng(seed)
    y, order = rng.integers(4, size=7), rng.permutation(7)
    for name in ("categorical_crossentropy", "binary_crossentropy"):
        assert scores.loss(p, y, name) == pytest.approx(scores.loss(p[order], y[order], name))
    assert scores.accuracy(p, y) == scores.accuracy(p[order], y[order])


def test_flat_names_numbers_with_dots():
    assert evaluation.flat({"a": {"b": 1.5, "c": "text"}, "d": 2}) == {"a.b": 1.5, "d": 2}
