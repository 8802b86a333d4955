"""The gate's arithmetic, by hand and as invariants."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import regrouped, task_spec
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mtl.config.gate import Gate
from mtl.release.decision import decide
from mtl.release.judging import fingerprints
from mtl.tasks.answers import Answers
from mtl.tasks.statistics import p_value_of_loss

OF_CLASS = {"cat": "animal", "dog": "animal", "car": "vehicle"}

RELATED = regrouped(
    task_spec("model1", {"cat": "cat", "dog": "dog", "car": "vehicle"}, ("cat", "dog", "vehicle")),
    task_spec("model2", OF_CLASS, ("animal", "vehicle")),
)


def answers(named: str, labels: str, classes: tuple[str, ...], of_class: dict[str, str]) -> Answers:
    """Of a model that names one class after the other, by their first letters."""
    letters = [name[0] for name in classes]
    probabilities = np.eye(len(classes), dtype=np.float32)[[letters.index(letter) for letter in named]]
    truth = np.array([letters.index(letter) for letter in labels], np.uint8)
    return Answers(task_spec("any", of_class, classes), truth, probabilities, "categorical_crossentropy")


def kinds(named: str, labels: str) -> Answers:
    return answers(named, labels, ("cat", "dog", "vehicle"), {"cat": "cat", "dog": "dog", "car": "vehicle"})


def groups(named: str, labels: str) -> Answers:
    return answers(named, labels, ("animal", "vehicle"), OF_CLASS)


def test_mcnemars_exact_test_by_hand():
    champion = np.array([1.0] * 5 + [0.0] + [1.0] * 94)
    candidate = np.array([0.0] * 5 + [1.0] + [1.0] * 94)
    # 5 of 6 differing images for the champion: (6 over 5) + (6 over 6) of 2**6 ways.
    assert p_value_of_loss(candidate, champion) == pytest.approx(7 / 64)
    assert p_value_of_loss(champion, champion) == 1.0


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_images_on_which_both_are_right_or_both_wrong_do_not_count(pairs):
    candidate, champion = (np.array(column, float) for column in zip(*pairs, strict=True))
    p_value = p_value_of_loss(candidate, champion)
    assert 0 < p_value <= 1
    differ = candidate != champion
    assert p_value == p_value_of_loss(candidate[differ], champion[differ])
    # More images that the champion alone gets right make it no less sure that it is better.
    more = [np.append(column, value) for column, value in ((candidate, 0.0), (champion, 1.0))]
    assert p_value_of_loss(*more) <= p_value + 1e-12


def test_every_reason_is_named():
    candidate = {"model1": kinds("cccv", "ccdv"), "model2": groups("aavv", "aaav")}
    gate = Gate(accuracy={"model1": 0.8, "model2": 0.75}, contradictions=0.2, significance=0.01)
    decision = decide(gate, candidate, {}, np.arange(0), RELATED)
    assert decision.reasons == (
        "model1: accuracy 0.7500 is below 0.8",
        "contradictions: 0.2500 of the images, above 0.2",
    )
    assert not decision.passed
    assert decide(
        Gate(accuracy={"model1": 0.75}, contradictions=0.25, significance=None), candidate, {}, [], RELATED
    ).passed


def test_a_champion_that_is_better_on_what_it_has_not_seen_stays():
    truth = "c" * 10 + "d" * 2
    candidate = {"model1": kinds("d" * 10 + "d" * 2, truth)}
    compared = np.arange(10)
    champion = {"model1": kinds("c" * 10, truth[:10])}
    gate = Gate(accuracy={"model1": 0.0}, contradictions=0.0, significance=0.01)
    decision = decide(gate, candidate, champion, compared)
    (row,) = decision.tasks
    assert (row.images, row.candidate, row.champion) == (10, 0.0, 1.0)
    assert row.p_value == pytest.approx(0.5**10)
    assert decision.contradictions is None  # one task alone contradicts nobody
    assert decision.reasons == ("model1: the champion is better (1.0000 against 0.0000 on 10 images, p 0.00098)",)
    assert decide(gate.model_copy(update={"significance": 0.0005}), candidate, champion, compared).passed


@pytest.mark.parametrize(
    ("key", "value"),
    [("accuracy", {}), ("accuracy", {"a": 1.5}), ("contradictions", -0.1), ("significance", 0), ("significance", 1)],
)
def test_a_gate_out_of_range_is_refused(key, value):
    good = {"accuracy": {"a": 0.5}, "contradictions": 0.1, "significance": 0.05}
    with pytest.raises(ValidationError):
        Gate(**good | {key: value})


def test_the_same_pixels_have_the_same_fingerprint_wherever_they_are():
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 3), np.uint8)
    found = fingerprints(images)
    assert (found.dtype, found.shape, len(set(found.tolist()))) == (np.uint64, (50,), 50)
    order = np.random.default_rng(1).permutation(50)
    assert (fingerprints(images[order]) == found[order]).all()
    images[0, 0, 0, 0] ^= 1
    assert fingerprints(images)[0] != found[0]
