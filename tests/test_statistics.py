"""The statistics of the verdict against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multinomial

from mtl.tasks import statistics


def test_wilson_by_hand():
    z, p, n = 1.959964, 0.8, 10
    centre, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    expected = [(centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)]
    assert statistics.wilson(8, 10) == pytest.approx(expected, rel=1e-6)
    low, high = statistics.wilson(10, 10)
    assert (0.5 < low < 1, high) == (True, 1)


def test_calibration_by_hand():
    confidence = np.array([0.95, 0.95, 0.55, 0.55])
    rows = statistics.reliability(confidence, np.array([True, False, True, True]))
    assert [(row["low"], row["high"], row["images"], row["acc"]) for row in rows] == [
        (0.5333, 0.6, 2, 1.0),
        (0.9333, 1.0, 2, 0.5),
    ]
    # Half of the images are 0.45 less right than they are sure, half 0.45 more.
    assert statistics.calibration_error(rows) == pytest.approx(0.45)


def test_a_model_as_right_as_it_is_sure_has_no_calibration_error():
    rows = statistics.reliability(np.array([0.75] * 4 + [1.0]), np.array([True, True, True, False, True]))
    assert [row["images"] for row in rows] == [4, 1]
    assert statistics.calibration_error(rows) == 0


def test_the_ends_of_an_interval_belong_to_the_one_below():
    rows = statistics.reliability(np.array([1 / 15, 3 / 15, 1.0, 0.0]), np.ones(4, bool))
    assert [(row["low"], row["images"]) for row in rows] == [(0.0, 2), (0.1333, 1), (0.9333, 1)]


def test_confusion_and_per_class_with_a_class_without_images():
    labels, predicted = np.array([0, 0, 1]), np.array([0, 2, 1])
    rows = statistics.confusion(labels, predicted, ("a", "b", "c"))
    assert {(r["actual"], r["predicted"]): (r["images"], r["share"]) for r in rows if r["images"]} == {
        ("a", "a"): (1, 0.5),
        ("a", "c"): (1, 0.5),
        ("b", "b"): (1, 1),
    }
    assert len(rows) == 9
    assert {r["share"] for r in rows if r["actual"] == "c"} == {None}
    of_class = statistics.per_class(labels, predicted, ("a", "b", "c"))
    assert [(r["class"], r["images"], r["acc"]) for r in of_class] == [("a", 2, 0.5), ("b", 1, 1), ("c", 0, None)]
    assert (of_class[0]["acc_low"], of_class[0]["acc_high"]) == statistics.wilson(1, 2)
    assert of_class[2]["acc_low"] is None


def outcomes(only_own: int, only_other: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Who was right, with so many images where one alone was, and both wrong on the rest."""
    own, other = np.zeros(images, bool), np.zeros(images, bool)
    own[:only_own] = True
    other[only_own : only_own + only_other] = True
    return own, other


def test_paired_by_hand():
    row = statistics.paired(*outcomes(9, 1, 100))
    assert (row["only_own"], row["only_derived"], row["gain"]) == (9, 1, pytest.approx(0.08))
    # Two-sided: 0 or 1 of 10 heads, doubled.
    assert row["p_value"] == pytest.approx(2 * (1 + 10) / 2**10)
    # 9.5, 1.5 and 102 after adding a half to each of the four cells: 8 / 102 ± 1.96 · √(11 - 64 / 102) / 102.
    half = 1.959964 * math.sqrt(11 - 64 / 102) / 102
    assert row["gain_low"] == pytest.approx(8 / 102 - half, rel=1e-6)
    assert row["gain_high"] == pytest.approx(8 / 102 + half, rel=1e-6)


def test_models_that_are_right_on_the_same_images_differ_by_nothing():
    row = statistics.paired(np.array([True, False]), np.array([True, False]))
    assert (row["gain"], row["p_value"]) == (0, 1)
    assert row["gain_low"] < 0 < row["gain_high"]


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 20))
def test_paired_is_antisymmetric_and_holds_the_gain(b, c, rest):
    own, other = outcomes(b, c, b + c + rest)
    one, swapped = statistics.paired(own, other), statistics.paired(other, own)
    assert -1 <= one["gain_low"] <= one["gain"] <= one["gain_high"] <= 1
    assert swapped["gain_low"] == pytest.approx(-one["gain_high"])
    assert swapped["p_value"] == pytest.approx(one["p_value"])


def test_the_interval_of_the_gain_covers_it_in_95_of_100_cases():
    """Exact: over all outcomes of 30 images, weighted by their probability."""
    images, p_own, p_other = 30, 0.15, 0.05
    covered = 0.0
    for b in range(images + 1):
        for c in range(images + 1 - b):
            row = statistics.paired(*outcomes(b, c, images))
            if row["gain_low"] <= p_own - p_other <= row["gain_high"]:
                weights = (p_own, p_other, 1 - p_own - p_other)
                covered += multinomial.pmf((b, c, images - b - c), images, weights)
    assert 0.94 < covered < 0.98
