"""What the answer to one task says about another's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtl import files
from mtl.errors import UserError
from mtl.tasks import relations, spec
from mtl.tasks.spec import TaskSpec

VALUES = "abcde"


def described(name: str, groups: Sequence[int], column: str = "class") -> TaskSpec:
    """A task that puts each of VALUES into the group of that number."""
    names = tuple(f"g{group}" for group in range(max(groups) + 1))
    of_value = {value: names[group] for value, group in zip(VALUES, groups, strict=True)}
    return TaskSpec(
        name=name, columns=(column,), names=names, groups=of_value, frequencies=(1 / len(names),) * len(names)
    )


FINE = described("fine", range(5))
GROUPINGS = st.lists(st.integers(0, 2), min_size=5, max_size=5).filter(lambda g: set(g) in ({0, 1}, {0, 1, 2}))


@given(GROUPINGS, st.integers(0, 2**32 - 1))
def test_derived_answers_are_sums_over_the_labels_of_the_base(groups, seed):
    p = np.random.default_rng(seed).dirichlet(np.ones(5), size=4)
    relation = relations.relate(FINE, described("coarse", groups))
    sums = relations.group_sums(p, relation)
    expected = [[row[np.array(groups) == group].sum() for group in range(max(groups) + 1)] for row in p]
    np.testing.assert_allclose(sums, expected)
    np.testing.assert_allclose(sums.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("base", "target"),
    [
        (described("coarse", [0, 0, 1, 1, 1]), FINE),
        (described("a", [0, 0, 1, 1, 1]), described("b", [0, 1, 0, 1, 0])),
        (FINE, described("same", [4, 3, 2, 1, 0])),
        (FINE, described("other", [0, 0, 1, 1, 1], column="colour")),
    ],
)
def test_nothing_is_implied_where_a_label_says_nothing_certain(base, target):
    assert relations.relate(base, target) is None


def test_the_finest_base_is_taken_and_its_contradictions_are_counted():
    middle, coarse = described("middle", [0, 0, 1, 2, 2]), described("coarse", [0, 0, 1, 1, 1])
    related = relations.find_all({"coarse": coarse, "middle": middle, "fine": FINE})
    assert {task: relation.base for task, relation in related.items()} == {"coarse": "fine", "middle": "fine"}
    labels = {"fine": np.array([0, 4]), "middle": np.array([0, 1]), "coarse": np.array([1, 1])}
    contradicted = relations.contradictions(related, labels)
    assert {task: found.tolist() for task, found in contradicted.items()} == {
        "coarse": [True, False],
        "middle": [False, True],
    }


def test_a_task_comes_back_from_its_file(tmp_path):
    files.write_json(tmp_path / "task.json", FINE.model_dump())
    assert spec.read(tmp_path / "task.json") == FINE


@pytest.mark.usefixtures("tensorflow")
def test_a_task_comes_back_from_its_model_and_a_model_without_one_is_one_line(tmp_path):
    import keras

    from mtl.networks import saving

    model = keras.Sequential([keras.layers.Input((2, 2, 3)), keras.layers.Flatten(), keras.layers.Dense(5, "softmax")])
    saving.write(model, tmp_path / "with.keras", FINE)
    assert spec.read_from_model(tmp_path / "with.keras") == FINE
    assert saving.read_for(FINE, (2, 2, 3), tmp_path / "with.keras").output_shape == (None, 5)
    model.save(tmp_path / "without.keras")  # as the last version did
    with pytest.raises(UserError, match=r"without.keras .+ `dvc repro`") as caught:
        saving.read_for(FINE, (2, 2, 3), tmp_path / "without.keras")
    assert "\n" not in str(caught.value)
