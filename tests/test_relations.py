"""What the answer to one task says about another's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from conftest import regrouped
from hypothesis import given
from hypothesis import strategies as st

from mtl import files
from mtl.errors import UserError
from mtl.tasks import relations, spec
from mtl.tasks.answers import Answers
from mtl.tasks.relations import Relations
from mtl.tasks.spec import TaskSpec
from mtl.tasks.targets import Targets

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
def test_derived_answers_of_a_functional_relation_are_sums_over_the_labels_of_the_base(groups, seed):
    coarse, p = described("coarse", groups), np.random.default_rng(seed).dirichlet(np.ones(5), size=4)
    related = regrouped(FINE, coarse)
    assert related.derived == {"coarse": "fine"}
    sums = relations.derive(related.of("fine", "coarse"), p, coarse)
    expected = [[row[np.array(groups) == group].sum() for group in range(max(groups) + 1)] for row in p]
    np.testing.assert_allclose(sums, expected)
    np.testing.assert_allclose(sums.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("base", "target"),
    [
        (described("coarse", [0, 0, 1, 1, 1]), FINE),
        (described("a", [0, 0, 1, 1, 1]), described("b", [0, 1, 0, 1, 0])),
        (FINE, described("same", [4, 3, 2, 1, 0])),
        (FINE, described("other", [0, 0, 1, 1, 1], column="colour")),  # one example of each class is no evidence
    ],
)
def test_nothing_is_implied_where_a_label_says_nothing_certain(base, target):
    assert not regrouped(base, target).of(base.name, target.name).functional


def test_the_finest_base_is_taken_and_its_contradictions_are_counted():
    middle, coarse = described("middle", [0, 0, 1, 2, 2]), described("coarse", [0, 0, 1, 1, 1])
    related = regrouped(coarse, middle, FINE)
    assert related.derived == {"coarse": "fine", "middle": "fine"}
    labels = {"fine": np.array([0, 4]), "middle": np.array([0, 1]), "coarse": np.array([1, 1])}
    contradicted = relations.contradictions(related, labels)
    assert {pair: row.tolist() for pair, row in contradicted.items()} == {
        ("fine", "coarse"): [True, False],
        ("fine", "middle"): [False, True],
        ("middle", "coarse"): [True, False],
    }
    assert relations.contradictions(related.among(["fine", "coarse"]), labels).keys() == {("fine", "coarse")}


def other(labels: np.ndarray, known: np.ndarray | None = None) -> Targets:
    return Targets(labels, np.ones(labels.shape, bool) if known is None else known)


COLOUR = TaskSpec(name="colour", columns=("colour",), names=("red", "blue"), frequencies=(0.5, 0.5))
SHAPE = TaskSpec(name="shape", columns=("shape",), names=("disc", "bar", "star"), frequencies=(0.4, 0.3, 0.3))


def test_a_relation_between_two_columns_is_learned_from_enough_examples():
    shapes = np.repeat([0, 1, 2], 20)
    colours = np.array([0] * 20 + [0, 1] * 10 + [1] * 20)
    related = relations.learn({"shape": SHAPE, "colour": COLOUR}, {"shape": other(shapes), "colour": other(colours)})
    pair = related.of("shape", "colour")
    np.testing.assert_allclose(pair.table, [[1, 0], [0.5, 0.5], [0, 1]])
    assert not pair.functional
    assert pair.impossible == ((0, 1), (2, 0))  # 20 · 30 / 60 = 10 are expected, and none is there
    assert related.of("colour", "shape").impossible == ()  # each two tasks once
    half = np.arange(60) % 20 < 10
    few = relations.learn(
        {"shape": SHAPE, "colour": COLOUR}, {"shape": other(shapes[half]), "colour": other(colours[half])}
    )
    assert few.of("shape", "colour").impossible == ()
    always = relations.learn(
        {"shape": SHAPE, "colour": COLOUR}, {"shape": other(shapes), "colour": other((shapes > 0).astype(int))}
    )
    assert always.derived == {"colour": "shape"}
    assert always.of("shape", "colour").impossible == ((0, 1), (1, 0), (2, 0))


def test_examples_that_one_task_does_not_know_say_nothing():
    shapes, colours = np.repeat([0, 1, 2], 20), np.repeat([0, 1, 1], 20)
    known = np.arange(60) % 2 == 0
    wrong = np.where(known, colours, 1 - colours)
    specs = {"shape": SHAPE, "colour": COLOUR}
    with_gaps = relations.learn(specs, {"shape": other(shapes), "colour": other(wrong, known)})
    without = relations.learn(specs, {"shape": other(shapes[known]), "colour": other(colours[known])})
    assert with_gaps == without


def test_what_a_class_says_about_a_value_is_its_mean():
    price = TaskSpec(name="price", kind="value", columns=("p",), names=("p",), transform="log", mean=2.0, deviation=0.5)
    shapes = np.repeat([0, 1, 2], 10)
    prices = np.exp(2.0 + 0.5 * np.repeat([-1.0, 0.0, 1.0], 10))
    targets = {"shape": other(shapes), "price": other(prices)}
    related = relations.learn({"shape": SHAPE, "price": price}, targets)
    answer = relations.derive(related.of("shape", "price"), np.array([[0.5, 0, 0.5], [0, 0, 2.0]]), price)
    np.testing.assert_allclose(answer[:, 0], np.exp([2.0, 2.5]))
    assert related.matrix["price"]["shape"] == pytest.approx(1)
    assert related.derived == {}
    # On the validation examples it is as good as the task's own model, and so it is derived.
    validation = {
        "shape": Answers(SHAPE, shapes, np.eye(3)[shapes]),
        "price": Answers(price, prices, prices[:, None].astype(np.float32)),
    }
    assert relations.choose(related, validation).derived == {"price": "shape"}
    unsure = {**validation, "shape": Answers(SHAPE, shapes, np.full((30, 3), 1 / 3))}
    chosen = relations.choose(related, unsure)
    assert chosen.derived == {}
    assert chosen.pairs == ()  # what is not used is not kept


def of_many(name: str, count: int) -> TaskSpec:
    names = tuple(f"{name}{index}" for index in range(count))
    return TaskSpec(name=name, columns=(name,), names=names, frequencies=(1 / count,) * count)


def test_a_task_of_very_many_classes_is_related_to_one_of_few_and_to_its_like_not_at_all():
    fine, halves, others = of_many("fine", 60_000), of_many("half", 2), of_many("other", 60_000)
    labels = np.arange(60_000)
    targets = {"fine": other(labels), "half": other(labels % 2), "other": other(labels)}
    related = relations.learn({spec.name: spec for spec in (fine, halves, others)}, targets)
    assert {(pair.base, pair.target) for pair in related.pairs} == {
        ("fine", "half"),
        ("half", "fine"),
        ("other", "half"),
        ("half", "other"),
    }
    assert related.of("half", "fine").table[1][:4] == (0, pytest.approx(1 / 30_000), 0, pytest.approx(1 / 30_000))


def test_relations_come_back_from_json_and_those_of_an_earlier_version_are_none():
    related = regrouped(FINE, described("coarse", [0, 0, 1, 1, 1]))
    assert relations.read(related.model_dump(mode="json")) == related
    assert relations.read({"derived": {}}) == Relations()


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
