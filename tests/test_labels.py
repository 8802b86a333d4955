"""The values of a column, or groups of them, become labels."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl.config.params import Classes
from mtl.errors import UserError
from mtl.tasks import grouping
from mtl.tasks.spec import TaskSpec
from mtl.tasks.targets import Targets

CLASSES = ("cat", "dog", "ship", "truck")
ANIMALS = {"animal": ("cat", "dog"), "vehicle": ("ship", "truck")}


def task(groups) -> Classes:
    return Classes(labels=groups, recipe="any")


def derive(groups, values, name="t", column="class") -> tuple[TaskSpec, Targets]:
    """The task and its training labels from a column with these values; each is in validation and test too."""
    part = pa.chunked_array([pa.array(values)])
    spec, targets = grouping.derive(name, task(groups), column, {"train": part, "validation": part, "test": part})
    return spec, targets["train"]


def test_animal_is_0_and_vehicle_is_1_as_listed():
    spec, (labels, known) = derive(ANIMALS, ["truck", "cat", "dog", "ship"])
    assert spec.names == ("animal", "vehicle")
    assert spec.groups == {"cat": "animal", "dog": "animal", "ship": "vehicle", "truck": "vehicle"}
    assert spec.frequencies == (0.5, 0.5)
    assert labels.tolist() == [1, 0, 0, 1]
    assert (labels.dtype, labels.shape, known.all()) == (np.uint8, (4,), True)


def test_null_means_the_values_of_the_column():
    spec, (labels, _) = derive(None, ["truck", "cat", "dog", "ship"])
    assert spec.names == CLASSES
    assert labels.tolist() == [3, 0, 1, 2]


def test_a_gap_is_a_gap_and_no_class():
    spec, (labels, known) = derive(None, ["cat", None, "dog", "cat"])
    assert spec.names == ("cat", "dog")
    assert known.tolist() == [True, False, True, True]
    assert labels[known].tolist() == [0, 1, 0]
    assert spec.frequencies == (2 / 3, 1 / 3)


@pytest.mark.parametrize(
    ("values", "names"),
    [([10, 2, 2, 10], ("2", "10")), ([True, False, True, False], ("false", "true")), (["ü", "=1", "ü"], ("=1", "ü"))],
)
def test_values_of_any_type_have_names(values, names):
    assert derive(None, values)[0].names == names


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"a": ("cat", "bike"), "b": ("dog", "ship", "truck")}, "tasks.t.labels.a: the data set has no class 'bike'"),
        ({"a": ("cat",), "b": ("dog", "ship")}, "tasks.t.labels: class 'truck' is in no group; add it to one of a, b"),
    ],
)
def test_classes_that_do_not_fit_are_named(groups, message):
    with pytest.raises(UserError) as caught:
        derive(groups, CLASSES)
    assert message in str(caught.value)


groupings = st.lists(st.integers(0, 2), min_size=6, max_size=6).filter(lambda g: len(set(g)) == 3)


def as_groups(group_of: list[int]) -> dict[str, tuple[str, ...]]:
    return {f"g{n}": tuple(c for c, g in zip("abcdef", group_of, strict=True) if g == n) for n in range(3)}


@given(groupings, st.lists(st.integers(0, 5)))
def test_label_of_every_image_is_the_group_of_its_class(group_of, more):
    values = [*range(6), *more]
    _, (labels, _) = derive(as_groups(group_of), ["abcdef"[value] for value in values])
    assert labels.tolist() == [group_of[value] for value in values]


@pytest.mark.parametrize(
    ("train", "test", "names"),
    [
        (["a", "b"], ["a", "c"], ["c in test alone", "'col'"]),
        ([None, None], ["a", "b"], ["any train example"]),
        (["a", "b"], [None], ["any test example"]),
        (["a", "a"], ["a"], ["one class only", "'a'"]),
        ([str(number) for number in range(70_000)], ["1"], ["70,000 classes"]),
    ],
)
def test_a_column_that_no_model_can_learn_is_one_line(train, test, names):
    parts = {"train": train, "validation": [], "test": test}
    splits = {split: pa.chunked_array([pa.array(part, pa.string())]) for split, part in parts.items()}
    with pytest.raises(UserError) as caught:
        grouping.derive("t", task(None), "col", splits)
    assert all(name in str(caught.value) for name in ("tasks.t", *names)) and "\n" not in str(caught.value)


def test_a_thousand_classes_have_labels_of_two_bytes():
    spec, (labels, _) = derive(None, [f"{number:04}" for number in range(1000)])
    assert (len(spec.names), labels.dtype, labels.tolist()) == (1000, np.uint16, list(range(1000)))


def test_a_column_that_is_not_there_is_answered_by_the_nearest_name():
    with pytest.raises(UserError, match="did you mean 'label'"):
        grouping.column_of("t", "labell", ["kids", "label"])
    with pytest.raises(UserError, match=r"tasks\.t: .* kids \| label"):
        grouping.column_of("t", None, ["kids", "label"])
    assert grouping.column_of("t", None, ["class"]) == "class"
