"""Groups of the values of a column become labels."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl.config.params import Task
from mtl.errors import UserError
from mtl.tasks import grouping

CLASSES = ("cat", "dog", "ship", "truck")
ORDER = ("truck", "cat", "dog", "ship")


def task(groups) -> Task:
    return Task(labels=groups, recipe="any")


def column(values) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, pa.string())])


def test_animal_is_0_and_vehicle_is_1_as_listed():
    groups = task({"animal": ("cat", "dog"), "vehicle": ("ship", "truck")})
    spec, targets = grouping.derive("model2", groups, "class", {"train": column(ORDER)})
    assert spec.groups == {"cat": "animal", "dog": "animal", "ship": "vehicle", "truck": "vehicle"}
    assert (spec.names, spec.columns, spec.frequencies) == (("animal", "vehicle"), ("class",), (0.5, 0.5))
    labels, known = targets["train"]
    assert labels.tolist() == [1, 0, 0, 1]
    assert (labels.dtype, labels.shape, known.all()) == (np.uint8, (4,), True)


def test_null_means_the_classes_of_the_data_set():
    spec, targets = grouping.derive("model1", task(None), "class", {"train": column(ORDER)})
    assert spec.names == CLASSES
    assert targets["train"].labels.tolist() == [3, 0, 1, 2]


def test_a_gap_is_label_0_and_unknown():
    splits = {"train": column(["a", "b", None, "b"]), "test": column([None, "b"])}
    spec, targets = grouping.derive("t", task(None), "class", splits)
    assert targets["train"].labels.tolist() == [0, 1, 0, 1]
    assert targets["train"].known.tolist() == [True, True, False, True]
    assert targets["test"].known.tolist() == [False, True]
    assert spec.frequencies == pytest.approx((1 / 3, 2 / 3))


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"a": ("cat", "bike"), "b": ("dog", "ship", "truck")}, "tasks.t.labels.a: the data set has no class 'bike'"),
        ({"a": ("cat",), "b": ("dog", "ship")}, "tasks.t.labels: class 'truck' is in no group; add it to one of a, b"),
    ],
)
def test_classes_that_do_not_fit_are_named(groups, message):
    with pytest.raises(UserError) as caught:
        grouping.group_values("t", task(groups), CLASSES)
    assert message in str(caught.value)


@given(st.lists(st.integers(0, 2), min_size=6, max_size=6).filter(lambda g: len(set(g)) == 3), st.data())
def test_label_of_every_image_is_the_group_of_its_class(group_of, data):
    classes = tuple("abcdef")
    groups = {f"g{n}": tuple(c for c, g in zip(classes, group_of, strict=True) if g == n) for n in range(3)}
    tested = data.draw(st.lists(st.sampled_from(classes), min_size=1))
    splits = {"train": column(classes), "test": column(tested)}
    _, targets = grouping.derive("t", task(groups), "class", splits)
    assert targets["test"].labels.tolist() == [group_of[classes.index(name)] for name in tested]
