"""The kinds multilabel and value, and the contract of all kinds: figures, losses, gaps and heads side by side."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from images import encoded
from scipy.stats import binomtest, permutation_test
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, r2_score

from mtl.config.params import Classes, Multilabel, Task, Value
from mtl.config.recipes import Adam, Recipe
from mtl.evaluation.verdict import of_task
from mtl.networks import saving
from mtl.tasks import heads, kinds, statistics, targets
from mtl.tasks.answers import Answers
from mtl.tasks.kinds import classes, multilabel, value
from mtl.tasks.spec import TaskSpec
from mtl.tasks.targets import Head, Targets
from mtl.training import losses

pytestmark = pytest.mark.usefixtures("tensorflow")
few = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
slowly = settings(few, max_examples=4)  # of bootstraps
SEEDS = st.integers(0, 2**32 - 1)
TASKS: dict[str, Task] = {
    "shape": Classes(column="shape", recipe="any"),
    "flags": Multilabel(kind="multilabel", columns=("red", "noisy"), recipe="any"),
    "size": Value(kind="value", column="size", transform="log", recipe="any"),
}
ALL = ("classes", "multilabel", "value")


def table(seed: int, count: int = 30, gaps: float = 0.0) -> pa.Table:
    """Columns for TASKS; the first rows have every value, and no gap."""
    rng = np.random.default_rng(seed)
    columns = {
        "shape": ["a", "b", "c", *rng.choice(["a", "b", "c"], count - 3)],
        "red": [0, 1, *rng.integers(2, size=count - 2).tolist()],
        "noisy": [True, False, *(rng.random(count - 2) < 0.4).tolist()],
        "size": np.exp(rng.normal(2, 1, count)).tolist(),
    }
    lost = rng.random((count, len(columns))) < gaps
    lost[:3] = False
    cells = zip(columns.items(), lost.T, strict=True)
    return pa.table(
        {name: [None if gap else cell for cell, gap in zip(row, gone, strict=True)] for (name, row), gone in cells}
    )


def derive(name: str, train: pa.Table, task: Task | None = None) -> tuple[TaskSpec, Targets]:
    """The task and the labels of these examples, which are those of every split."""
    task = task or TASKS[name]
    spec, of_splits = kinds.find(task.kind).derive(name, task, {"train": train, "validation": train, "test": train})
    return spec, of_splits["train"]


def numbers(labels: Sequence[float], transform: str | None = None) -> TaskSpec:
    """A task of the kind value with these training labels."""
    task = Value.model_validate({"kind": "value", "column": "n", "transform": transform, "recipe": "any"})
    return derive("n", pa.table({"n": list(labels)}), task)[0]


def guesses(spec: TaskSpec, count: int, seed: int) -> np.ndarray:
    """Outputs such as a model of the task might give, float32 (count, K)."""
    rng = np.random.default_rng(seed)
    if spec.kind == "classes":
        return rng.dirichlet(np.ones(len(spec.names)), count).astype(np.float32)
    if spec.kind == "multilabel":
        return rng.random((count, len(spec.names))).astype(np.float32)
    return np.exp(rng.normal(2, 1, (count, 1))).astype(np.float32)


def answered(name: str, seed: int, gaps: float = 0.0, count: int = 30) -> Answers:
    """Answers to a task of TASKS."""
    spec, (labels, known) = derive(name, table(seed, count, gaps))
    return Answers(spec, labels, guesses(spec, count, seed), known=known)


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Assert that two verdicts on a task are the same, but for the last bits of sums in another order."""
    assert one.keys() == other.keys()
    for key, figure in one.items():
        assert figure == (pytest.approx(other[key], rel=1e-9) if isinstance(figure, float) else other[key]), key


# --- value


@few
@given(st.floats(-1e4, 1e4), st.floats(1, 1e4), st.sampled_from([None, "log"]), SEEDS)
def test_the_network_of_a_value_ends_in_the_inverse_of_what_it_learns(offset, scale, transform, seed):
    drawn = np.random.default_rng(seed).normal(size=20)
    labels = np.exp(drawn) * scale if transform else offset + scale * drawn
    spec = numbers(labels, transform)
    learned = value.standardised(spec, labels)
    assert learned.mean() == pytest.approx(0, abs=1e-6) and learned.std() == pytest.approx(1)
    inputs = keras.Input((1,))
    whole = value.finish(keras.Model(inputs, keras.layers.Activation("linear")(inputs)), spec)
    answers = whole(learned[:, None].astype(np.float32)).numpy()[:, 0]
    np.testing.assert_allclose(answers, labels, rtol=1e-5, atol=1e-5 * scale + 1e-6 * abs(offset))


@pytest.mark.parametrize("transform", [None, "log"])
def test_a_value_network_is_the_same_after_it_was_saved(tmp_path, transform):
    spec = numbers([1.0, 2.0, 9.0], transform)
    inputs = keras.Input((4,))
    whole = value.finish(keras.Model(inputs, keras.layers.Dense(1)(inputs)), spec)
    saving.write(whole, tmp_path / "m.keras", spec)
    x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    np.testing.assert_array_equal(saving.read(tmp_path / "m.keras")(x).numpy(), whole(x).numpy())
    assert saving.spec.read_from_model(tmp_path / "m.keras") == spec


@given(SEEDS, st.sampled_from([None, "log"]))
def test_r2_is_that_of_scikit_learn_and_skill_0_for_the_training_mean(seed, transform):
    rng = np.random.default_rng(seed)
    trained, labels, outputs = np.exp(rng.normal(size=40)), np.exp(rng.normal(size=20)), np.exp(rng.normal(size=20))
    spec, learned = numbers(trained, transform), np.log if transform else np.asarray
    judged = value.judge(Answers(spec, labels, outputs[:, None]))
    assert judged["r2"] == pytest.approx(r2_score(learned(labels), learned(outputs)))
    errors, constant = learned(labels) - learned(outputs), learned(labels) - learned(trained).mean()
    assert judged["skill"] == pytest.approx(1 - (errors**2).mean() / (constant**2).mean())
    mean = np.exp(np.log(trained).mean()) if transform else trained.mean()
    nothing = value.judge(Answers(spec, labels, np.full((20, 1), mean)))
    assert nothing["skill"] == pytest.approx(0, abs=1e-9) and nothing["spearman"] is None
    assert value.judge(Answers(spec, labels, labels[:, None]))["r2"] == 1


@given(SEEDS, st.sampled_from(value.LOSSES), st.sampled_from([None, "log"]))
def test_the_loss_of_a_value_is_that_of_keras_on_standardised_values(seed, name, transform):
    rng = np.random.default_rng(seed)
    labels, outputs = np.exp(rng.normal(size=20)), np.exp(rng.normal(scale=2, size=20))
    spec = numbers(labels, transform)
    own = value.loss_of(Answers(spec, labels, outputs[:, None], loss=name))
    y, p = (value.standardised(spec, part)[:, None].astype(np.float32) for part in (labels, outputs))
    assert own == pytest.approx(float(keras.losses.get({"huber": "Huber"}.get(name, name))(y, p).numpy().mean()), 1e-4)
    assert own == pytest.approx(float(value.loss(name, 0.1, Head(1, kind="value"))(y, p)), 1e-4)


# --- multilabel


@given(SEEDS, st.integers(1, 4))
def test_figures_of_labels_are_those_of_scikit_learn(seed, count):
    rng = np.random.default_rng(seed)
    labels, outputs = (rng.random((12, count)) < 0.3).astype(np.uint8), rng.random((12, count)).astype(np.float32)
    names, thresholds = tuple("abcd"[:count]), tuple(rng.random(count).tolist())
    shares = (0.3,) * count
    spec = TaskSpec(name="t", kind="multilabel", columns=names, names=names, frequencies=shares, thresholds=thresholds)
    judged, chosen = multilabel.judge(Answers(spec, labels, outputs)), outputs >= np.float32(thresholds)
    occurs = labels.any(axis=0)
    if occurs.any():
        expected = average_precision_score(labels[:, occurs], outputs[:, occurs], average="macro")
        assert judged["map"] == pytest.approx(expected)
    else:
        assert judged["map"] is None
    by_name = [f1_score(*column, zero_division=np.nan) for column in zip(labels.T, chosen.T, strict=True)]
    macro = np.nan if np.isnan(by_name).all() else np.nanmean(by_name)
    micro = f1_score(labels.ravel(), chosen.ravel(), zero_division=np.nan)
    for name, expected in (("macro_f1", macro), ("micro_f1", micro)):
        assert judged[name] == (None if np.isnan(expected) else pytest.approx(expected))
    assert judged["exact_match"] == pytest.approx(accuracy_score(labels, chosen))
    own = multilabel.loss_of(Answers(spec, labels, outputs))
    assert own == pytest.approx(float(keras.losses.BinaryCrossentropy()(labels, outputs)), rel=1e-4)
    constant = Answers(spec, labels, np.tile(np.array(shares), (12, 1)))
    assert multilabel.judge(constant)["skill"] == pytest.approx(0, abs=1e-9)


@given(SEEDS, st.sampled_from([0.0, 0.3, 1.0]))
def test_a_settled_threshold_is_no_worse_than_one_half(seed, gaps):
    a = answered("flags", seed)
    known = np.random.default_rng(seed).random(a.labels.shape) >= gaps
    a = Answers(a.task, a.labels * known, a.outputs.round(1), known=known)
    settled = multilabel.settle(a.task, lambda: a)
    for index, threshold in enumerate(settled.thresholds):
        labels, p = a.labels[known[:, index], index], a.outputs[known[:, index], index]
        if not len(labels):
            assert threshold == 0.5
            continue
        at_half, own = (f1_score(labels, p >= np.float32(edge), zero_division=0) for edge in (0.5, threshold))
        assert own >= at_half and 0 <= threshold <= 1
    assert settled.model_copy(update={"thresholds": None}) == a.task


def test_without_validation_examples_thresholds_are_one_half():
    a = answered("flags", 0).at(np.arange(0))
    assert multilabel.settle(a.task, lambda: a).thresholds == (0.5, 0.5)


def test_names_in_one_column_are_those_between_delimiters():
    task = Multilabel(kind="multilabel", column="tags", delimiter="|", recipe="any")
    spec, (labels, known) = derive("t", pa.table({"tags": ["b| a", "a|a", None, "|", "b"]}), task)
    assert spec.names == ("a", "b") and spec.frequencies == (0.5, 0.5)
    assert labels.tolist() == [[1, 1], [1, 0], [0, 0], [0, 0], [0, 1]]
    assert known.tolist() == [[True] * 2, [True] * 2, [False] * 2, [True] * 2, [True] * 2]


@pytest.mark.parametrize("column", [[1, 0, None], [True, False, None], [1.0, 0.0, None], ["1", "False", None]])
def test_true_and_false_in_any_type(column):
    task = Multilabel(kind="multilabel", columns=("on",), recipe="any")
    _, (labels, known) = derive("t", pa.table({"on": column}), task)
    assert (labels.tolist(), known.tolist()) == ([[1], [0], [0]], [[True], [True], [False]])


# --- gaps, of all kinds


@slowly
@given(SEEDS, st.sampled_from([*TASKS]), st.integers(1, 5))
def test_examples_of_which_nothing_is_known_change_no_figure(seed, name, more):
    a, extra = answered(name, seed), answered(name, seed + 1).at(np.arange(more))
    both = Answers(
        a.task,
        np.concatenate([a.labels, np.zeros_like(extra.labels)]),
        np.concatenate([a.outputs, extra.outputs]),
        known=np.concatenate([np.ones(a.labels.shape, bool), np.zeros(extra.labels.shape, bool)]),
    )
    same(of_task(both), of_task(a))
    assert kinds.find(a.task.kind).tables(both.judged()) == kinds.find(a.task.kind).tables(a.judged())


@slowly
@given(SEEDS)
def test_outputs_for_unknown_labels_change_no_figure(seed):
    a = answered("flags", seed, gaps=0.3)
    other = Answers(a.task, a.labels, np.where(a.is_known, a.outputs, 1 - a.outputs), known=a.known)
    assert of_task(other) == of_task(a)
    np.testing.assert_array_equal(multilabel.utility(other), multilabel.utility(a))
    first, second = multilabel.settle(a.task, lambda: a), multilabel.settle(a.task, lambda: other)
    assert first == second


@given(SEEDS, st.sampled_from([*TASKS]), st.sampled_from([0.0, 0.5]))
def test_utility_is_1_at_most_and_nan_where_nothing_is_known(seed, name, gaps):
    a = answered(name, seed, gaps)
    utility = kinds.find(a.task.kind).utility(a)
    assert utility.shape == (30,)
    np.testing.assert_array_equal(np.isnan(utility), ~a.has_label)
    assert np.nanmax(utility) <= 1


def test_a_better_answer_has_more_utility():
    (labels, known), spec = Targets(np.array([2.0] * 4), np.ones(4, bool)), numbers([1.0, 2.0, 4.0])
    of_value = value.utility(Answers(spec, labels, np.array([[2.0], [2.5], [1.0], [9.0]]), known=known))
    assert (np.diff(of_value) < 0).all()
    flags = answered("flags", 0).task
    p, truth = np.array([[0.9, 0.1], [0.9, 0.9], [0.1, 0.9]]), np.array([[1, 0]] * 3)
    assert multilabel.utility(Answers(flags, truth, p)).tolist() == [1, 0.5, 0]
    shape = answered("shape", 0).task
    assert classes.utility(Answers(shape, np.array([0, 0]), np.eye(3)[:2])).tolist() == [1, 0]


@few
@given(SEEDS, st.sampled_from([*TASKS]), st.sampled_from([0, 1, 2]))
def test_the_loss_with_gaps_is_that_of_the_known_labels_alone(seed, name, which):
    spec, part = derive(name, table(seed, gaps=0.4))
    kind, size = kinds.find(spec.kind), len(spec.names)
    loss_name = kind.LOSSES[which % len(kind.LOSSES)]
    of_class = (1.0, 2.0, 0.5) if name == "shape" else None
    with_gaps = Head(size, kind=spec.kind, class_weights=of_class, gaps=True)
    without = Head(size, kind=spec.kind, class_weights=of_class)
    outputs = guesses(spec, 30, seed) if spec.kind != "value" else np.log(guesses(spec, 30, seed))
    y = kind.encode(kind.carried(spec, part, gaps=True).reshape(30, -1), with_gaps)
    p = tf.Variable(outputs)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(kind.loss(loss_name, 0.1, with_gaps).call(tf.constant(y), p))
    gradient = tape.gradient(total, p).numpy()
    if spec.kind == "multilabel":
        smooth = part.labels * 0.9 + 0.05
        each = -(smooth * np.log(outputs) + (1 - smooth) * np.log1p(-outputs)) / size
        assert float(total) == pytest.approx(float(each[part.known].sum()), rel=1e-4)
        assert not gradient[~part.known].any() and gradient[part.known].all()
        return
    alone = Targets(part.labels[part.known], part.known[part.known])
    y_alone = kind.encode(kind.carried(spec, alone, gaps=False).reshape(len(alone.labels), -1), without)
    plain = kind.loss(loss_name, 0.1, without).call(tf.constant(y_alone), tf.constant(outputs[part.known]))
    assert float(total) == pytest.approx(float(tf.reduce_sum(plain)), rel=1e-4)
    assert not gradient[~part.known].any() and gradient[part.known].any(axis=1).all()


# --- heads side by side


@few
@given(SEEDS, st.sampled_from([0.0, 0.4]))
def test_heads_side_by_side_carry_the_labels_of_each(seed, gaps):
    examples = table(seed, gaps=gaps)
    derived = [derive(name, examples) for name in TASKS]
    side = [Head(len(spec.names), kind=spec.kind, gaps=not part.known.all()) for spec, part in derived]
    each = [heads.carried(spec, part, head) for (spec, part), head in zip(derived, side, strict=True)]
    encoded_all = heads.encode(np.concatenate([labels.reshape(30, -1) for labels in each], axis=1), side)
    assert encoded_all.dtype == np.float32
    shape, flags, size = (encoded_all[:, columns] for columns in heads.target_columns(side))
    assert [columns.stop - columns.start for columns in targets.columns(side)] == [3, 2, 1]
    (_, one_of), (_, any_of), (spec, number) = derived
    np.testing.assert_array_equal(shape.sum(axis=1), one_of.known)
    np.testing.assert_array_equal(shape.argmax(axis=1)[one_of.known], one_of.labels[one_of.known])
    np.testing.assert_array_equal(flags[:, :2], any_of.labels)
    learned = value.standardised(spec, number.labels[number.known])
    np.testing.assert_allclose(size[number.known, 0], learned, rtol=1e-5, atol=1e-6)
    if side[1].gaps:
        np.testing.assert_array_equal(flags[:, 2:], any_of.known)
    if side[2].gaps:
        np.testing.assert_array_equal(size[:, 1], number.known)
    for head, labels, columns in zip(side, each, heads.target_columns(side), strict=True):
        np.testing.assert_array_equal(heads.encode(labels, [head]), encoded_all[:, columns])


def test_the_loss_of_several_kinds_is_their_weighted_sum():
    recipe = Recipe(network="compact", optimizer=Adam(name="adam"), batch_size=8, epochs=1)
    derived = [derive(name, table(0, gaps=0.3)) for name in TASKS]
    side = [
        Head(len(spec.names), weight=weight, kind=spec.kind, gaps=True)
        for (spec, _), weight in zip(derived, (1.0, 0.5, 2.0), strict=True)
    ]
    each = [heads.encode(heads.carried(*both, head), [head]) for both, head in zip(derived, side, strict=True)]
    outputs = [guesses(spec, 30, 0) for spec, _ in derived]
    alone = [
        float(losses.summed(recipe, [Head(head.outputs, kind=head.kind, gaps=True)])(y, p))
        for head, y, p in zip(side, each, outputs, strict=True)
    ]
    total = float(losses.summed(recipe, side)(np.concatenate(each, axis=1), np.concatenate(outputs, axis=1)))
    assert total == pytest.approx(alone[0] + 0.5 * alone[1] + 2 * alone[2], rel=1e-5)


# --- intervals and tests


@given(SEEDS, st.integers(10, 60))
def test_a_bootstrap_is_the_same_every_time_and_holds_the_score(seed, count):
    numbers = np.random.default_rng(seed).normal(size=count)
    low, high = statistics.bootstrap(count, lambda examples: float(numbers[examples].mean()))
    assert (low, high) == statistics.bootstrap(count, lambda examples: float(numbers[examples].mean()))
    assert low < numbers.mean() < high
    assert np.isnan(statistics.bootstrap(count, lambda examples: None)).all()


@slowly
@given(SEEDS, st.sampled_from(["flags", "size"]))
def test_the_interval_of_a_kind_is_of_its_primary_score(seed, name):
    a = answered(name, seed, count=60)
    kind = kinds.find(a.task.kind)
    low, high = kind.interval(a)
    assert low <= kind.judge(a)[next(iter(kind.SCORES))] <= high
    assert (low, high) == kind.interval(a)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_of_right_and_wrong_the_p_value_is_mcnemars(pairs):
    own, other = np.array(pairs, float).T
    better, worse = int((other > own).sum()), int((other < own).sum())
    exact = binomtest(better, better + worse, alternative="greater").pvalue if better + worse else 1.0
    assert statistics.p_value_of_loss(own, other) == pytest.approx(exact)


@few
@given(SEEDS, st.integers(3, 9), st.floats(-1, 1))
def test_of_numbers_the_p_value_is_that_of_a_permutation(seed, count, lead):
    rng = np.random.default_rng(seed)
    own = -(rng.normal(size=count) ** 2)
    other = own + rng.normal(lead, 0.5, size=count)
    exact = permutation_test(
        (other, own),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        alternative="greater",
        n_resamples=np.inf,
    ).pvalue
    assert statistics.p_value_of_loss(own, other) == pytest.approx(exact, abs=0.03)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_p_value_has_no_unit_and_is_1_where_nothing_differs(scale):
    rng = np.random.default_rng(0)
    own, other = scale * rng.normal(size=30), scale * (rng.normal(size=30) + 0.7)
    assert statistics.p_value_of_loss(own, own) == 1
    unscaled = statistics.p_value_of_loss(own / scale, other / scale)
    assert statistics.p_value_of_loss(own, other) == pytest.approx(unscaled) and unscaled < 0.2


# --- answers to people


def test_answers_are_json_and_feedback_is_what_they_look_like():
    for name in TASKS:
        a = answered(name, 0)
        kind = kinds.find(a.task.kind)
        decoded = kind.decode(a.task, a.outputs)
        assert len(decoded) == 30 and json.loads(json.dumps(decoded)) == decoded
        assert kind.caption(a.task, decoded[0])
    flags, size, shape = (answered(name, 0).task for name in ("flags", "size", "shape"))
    assert multilabel.truth(flags, ["noisy", "red"]) == ["red", "noisy"] and multilabel.truth(flags, []) == []
    assert value.truth(size, 3) == 3.0 and classes.truth(shape, "a") == "a"


@pytest.mark.parametrize(
    ("name", "label"),
    [
        *(("flags", label) for label in ("red", ["blue"], [["red"]], None, {"red": True}, [1])),
        *(("size", label) for label in ("3", True, None, [3], float("nan"), float("inf"), 10**400)),
        *(("shape", label) for label in (0, None, "d", ["a"])),
    ],
)
def test_feedback_of_another_kind_is_refused(name, label):
    spec = answered(name, 0).task
    with pytest.raises(ValueError, match=name):
        kinds.find(spec.kind).truth(spec, label)


@pytest.mark.parametrize("name", ALL)
def test_scores_begin_with_the_primary_one_and_are_judged(name):
    kind = kinds.find(name)
    a = next(answered(task, 0) for task in TASKS if TASKS[task].kind == name)
    judged = kind.judge(a)
    assert "skill" in kind.SCORES and kind.SCORES.keys() - judged.keys() <= {"auc", "average_precision"}
    assert next(iter(judged)) == next(iter(kind.SCORES))
    assert all(isinstance(figure, float | None) for figure in judged.values())
    assert kind.fault(a.outputs) == "" and kind.fault(np.full_like(a.outputs, np.nan)) != ""
    assert kind.one_answer(np.tile(a.outputs[:1], (5, 1))) and not kind.one_answer(a.outputs)


# --- a kind of a person's own


@pytest.mark.slow
def test_a_kind_of_ones_own_is_one_file_and_its_name_in_params(tmp_path):
    """Nothing else of the project knows of it: the number of lines that it needs outside of its module is 0."""
    rng = np.random.default_rng(0)
    lines = ["image,stars,split"]
    (tmp_path / "in").mkdir()
    for index in range(60):
        stars, split = int(rng.integers(1, 6)), ("train", "train", "validation", "test")[index % 4]
        pixels = rng.integers(0, 50, (12, 12, 3)) + 40 * stars
        (tmp_path / f"in/{index}.png").write_bytes(encoded(pixels.astype(np.uint8)))
        lines.append(f"{index}.png,{'' if index % 10 == 9 else stars},{split}")
    (tmp_path / "in/table.csv").write_text("\n".join(lines) + "\n")
    shutil.copy(Path(__file__).with_name("stars.py"), tmp_path)
    recipe = {"network": "compact", "options": {"widths": [8]}, "batch_size": 8, "epochs": 2}
    tree = {
        "seed": 0,
        "data": {"source": "table", "path": "in", "validation": 0},
        "tasks": {"stars": {"kind": "stars:KIND", "columns": ["stars"], "options": {"most": 5}, "recipe": "small"}},
        "hardware": {"threads": 1, "strategy": "auto"},
        "recipes": {"small": recipe | {"optimizer": {"name": "adam", "learning_rate": 0.01}}},
    }
    (tmp_path / "params.yaml").write_text(json.dumps(tree))
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/m.db"}
    for stage in ("load_data", "derive_labels", "train stars", "main_evaluate"):
        name, *task = stage.split()
        command = [sys.executable, ROOT / f"src/{name}.py", *task]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    judged = json.loads((tmp_path / "metrics/main_evaluate.json").read_text())["tasks"]["stars"]
    assert judged["kind"] == "stars:KIND" and judged.keys() >= {"near", "near_low", "near_high", "skill", "loss"}
    assert (tmp_path / "metrics/plots/values/stars.csv").exists()
