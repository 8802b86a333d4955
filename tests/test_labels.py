"""Groups of classes become labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl.config.params import Task
from mtl.errors import UserError
from mtl.tasks import grouping

CLASSES = ("cat", "dog", "ship", "truck")


def task(groups) -> Task:
    return Task(labels=groups, recipe="any")


def test_animal_is_0_and_vehicle_is_1_as_listed():
    groups = task({"animal": ("cat", "dog"), "vehicle": ("ship", "truck")})
    of_class = grouping.group_classes("model2", groups, CLASSES)
    assert of_class == {"cat": "animal", "dog": "animal", "ship": "vehicle", "truck": "vehicle"}
    names = grouping.group_names(groups, CLASSES)
    y = np.array([[3], [0], [1], [2]], np.uint8)
    derived = grouping.derive(y, of_class, names)
    assert derived.tolist() == [1, 0, 0, 1]
    assert (derived.dtype, derived.shape) == (np.uint8, (4,))


def test_null_means_the_classes_of_the_data_set():
    own = task(None)
    of_class = grouping.group_classes("model1", own, CLASSES)
    y = np.array([[3], [0]], np.uint8)
    assert grouping.derive(y, of_class, grouping.group_names(own, CLASSES)).tolist() == [3, 0]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"a": ("cat", "bike"), "b": ("dog", "ship", "truck")}, "tasks.t.labels.a: the data set has no class 'bike'"),
        ({"a": ("cat",), "b": ("dog", "ship")}, "tasks.t.labels: class 'truck' is in no group; add it to one of a, b"),
    ],
)
def test_classes_that_do_not_fit_are_named(groups, message):
    with pytest.raises(UserError) as caught:
        grouping.group_classes("t", task(groups), CLASSES)
    assert message in str(caught.value)


@given(st.lists(st.integers(0, 2), min_size=6, max_size=6).filter(lambda g: len(set(g)) == 3), st.data())
def test_label_of_every_image_is_the_group_of_its_class(group_of, data):
    classes = tuple("abcdef")
    groups = {f"g{n}": tuple(c for c, g in zip(classes, group_of, strict=True) if g == n) for n in range(3)}
    y = np.array(data.draw(st.lists(st.integers(0, 5), min_size=1)), np.uint8)[:, None]
    of_class = grouping.group_classes("t", task(groups), classes)
    derived = grouping.derive(y, of_class, grouping.group_names(task(groups), classes))
    assert derived.tolist() == [group_of[index] for index in y.ravel()]
