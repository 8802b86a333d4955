"""Calibrated answers and mirror averaging: in NumPy, in the saved network, and when they are refused."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_kinds import answered, derive, guesses, table
from test_training import recipe

from mtl.config.params import Params
from mtl.data.store import Examples
from mtl.errors import UserError
from mtl.evaluation import verdict
from mtl.networks import catalog, inference, saving
from mtl.tasks import calibration, kinds
from mtl.tasks.answers import Answers
from mtl.tasks.targets import Targets
from mtl.training import finishing

pytestmark = pytest.mark.usefixtures("tensorflow")
few = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SEEDS = st.integers(0, 2**32 - 1)
PROBABILITIES = ("shape", "flags")
SHAPE = (8, 8, 3)


def unsure(name: str, seed: int, count: int = 200) -> Answers:
    """Answers that are mostly right and far less sure than that."""
    a = answered(name, seed, count=count)
    rng = np.random.default_rng(seed)
    wrong = rng.random(len(a.labels)) < 0.2
    truth = a.labels if a.labels.ndim > 1 else np.eye(len(a.task.names))[a.labels]
    truth = np.where(wrong[:, None], np.roll(truth, 1, axis=1), truth)
    return replace(a, outputs=(0.4 * a.outputs + 0.6 * (0.3 + 0.4 * truth)).astype(np.float32))


@few
@given(st.sampled_from(["shape", "flags", "size"]), SEEDS)
def test_the_inverse_link_undoes_the_link(name, seed):
    a = answered(name, seed)
    kind = kinds.find(a.task.kind)
    back = kind.inverse_link(a.task, kind.link(a.task, a.outputs.astype(np.float64)))
    np.testing.assert_allclose(back, a.outputs, rtol=1e-5, atol=1e-7)


@few
@given(st.sampled_from(PROBABILITIES), SEEDS, st.floats(0.2, 5))
def test_a_temperature_changes_no_order_and_can_be_undone(name, seed, temperature):
    a = answered(name, seed)
    b = calibration.tempered(a, temperature)
    axis = 1 if name == "shape" else 0
    in_order = np.take_along_axis(b.outputs, np.argsort(a.outputs, axis=axis), axis)
    assert (np.diff(in_order, axis=axis) >= -1e-12).all()
    back = calibration.before(replace(b, task=b.task.model_copy(update={"temperature": temperature})))
    np.testing.assert_allclose(back.outputs, a.outputs, rtol=1e-4, atol=1e-6)


@few
@given(st.sampled_from(PROBABILITIES), SEEDS)
def test_the_fitted_temperature_lowers_loss_and_calibration_error(name, seed):
    a = unsure(name, seed)
    kind = kinds.find(a.task.kind)
    task = kind.calibrate(a, calibration.temperature)
    after = calibration.tempered(a, task.temperature)
    assert task.temperature < 1
    assert kind.loss_of(after) <= kind.loss_of(a)
    crossed = calibration.cross_fitted(a)
    assert kind.loss_of(after) <= kind.loss_of(crossed) + 1e-6


def test_what_is_judged_was_not_fitted_on():
    a = unsure("shape", 1)
    even = np.arange(0, len(a.labels), 2)
    changed = a.labels.copy()
    changed[even[::5]] = (changed[even[::5]] + 1) % 3
    one, other = calibration.cross_fitted(a), calibration.cross_fitted(replace(a, labels=changed))
    np.testing.assert_array_equal(one.outputs[even], other.outputs[even])
    assert not np.array_equal(one.outputs[even + 1], other.outputs[even + 1])


def test_the_verdict_says_the_figures_before_calibration():
    a = unsure("shape", 0)
    task = kinds.find("classes").calibrate(a, calibration.temperature)
    calibrated = replace(calibration.tempered(a, task.temperature), task=task)
    plain, judged = verdict.of_task(a), verdict.of_task(calibrated)
    assert judged["before_calibration"] == {
        "nll": pytest.approx(plain["nll"], rel=1e-4),
        "ece": pytest.approx(plain["ece"], rel=1e-4),
    }
    assert judged["acc"] == plain["acc"] and "before_calibration" not in plain
    rows = verdict.tables({"shape": calibrated})["reliability"]["shape"]
    before = [row for row in rows if row["answers"] == "before calibration"]
    assert sum(row["images"] for row in before) == sum(row["images"] for row in rows) / 2 == len(a.labels)


# --- in the network


def network(kind: str, outputs: int):
    built = recipe()
    images = np.random.default_rng(0).integers(0, 256, (20, *SHAPE), dtype=np.uint8)
    return inference.plain(catalog.build(built, SHAPE, outputs, images, [kind])), images


@pytest.mark.parametrize("name", ["shape", "flags", "size"])
@pytest.mark.parametrize("mirror", [False, True])
def test_the_saved_network_averages_and_tempers_as_numpy_does(name, mirror, tmp_path):
    spec, _ = derive(name, table(0))
    kind = kinds.find(spec.kind)
    temperature = 1.0 if spec.kind == "value" else 0.6
    if spec.kind != "value":
        spec = spec.model_copy(update={"temperature": temperature})
    trained, images = network(spec.kind, len(spec.names))
    saving.write(inference.finish(trained, spec, mirror), tmp_path / "m.keras", spec)
    model = saving.read(tmp_path / "m.keras")

    alone = kind.finish(trained, spec)
    views = [images, images[:, :, ::-1]] if mirror else [images]
    linked = [kind.link(spec, inference.predict(alone, view).astype(np.float64)) for view in views]
    expected = kind.inverse_link(spec, np.mean(linked, axis=0) / temperature)
    np.testing.assert_allclose(inference.predict(model, images), expected, rtol=1e-4, atol=1e-6)
    if mirror:
        np.testing.assert_allclose(
            inference.predict(model, images), inference.predict(model, images[:, :, ::-1]), rtol=1e-5
        )
    assert inference.multiply_adds(model) == (1 + mirror) * inference.multiply_adds(trained)
    assert inference.precision(model) == inference.precision(trained)


def test_a_model_answers_in_float32_whatever_its_network_computes_in(tmp_path):
    spec, _ = derive("shape", table(0))
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        inputs = keras.Input(SHAPE, dtype="uint8")
        pixels = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
        network = keras.Model(inputs, keras.layers.Dense(3, "softmax")(pixels))
    finally:
        keras.config.set_dtype_policy(before)
    saving.write(inference.finish(inference.plain(network), spec), tmp_path / "m.keras", spec)
    images = np.zeros((2, *SHAPE), np.uint8)
    assert inference.predict(saving.read(tmp_path / "m.keras"), images).dtype == np.float32


# --- finishing


def examples(a: Answers) -> Examples:
    images = np.random.default_rng(3).integers(0, 256, (len(a.labels), *SHAPE), dtype=np.uint8)
    return Examples(images, Targets(a.labels, a.is_known))


def finish(a: Answers, trained, **changes) -> finishing.Finished:
    return finishing.finish(trained, a.task, recipe(**{"calibrate": "temperature", **changes}), examples(a))


def test_a_model_is_finished_with_the_temperature_of_its_own_answers():
    a = answered("shape", 0, count=300)
    trained, _ = network("classes", 3)
    trained.set_weights([*trained.get_weights()[:-1], 5 * trained.get_weights()[-1]])  # surer than at the start
    part = examples(a)
    outputs = inference.predict(trained, part.images)
    labels = np.where(np.arange(300) % 5 > 0, outputs.argmax(axis=1), a.labels)  # mostly as it answers
    a = replace(a, labels=labels)
    plain, finished = replace(a, outputs=outputs), finish(a, trained)
    assert finished.task.temperature == finished.calibration["temperature"] == calibration.temperature(plain)
    assert finished.calibration["nll_before"] == pytest.approx(kinds.find("classes").loss_of(plain), rel=1e-6)
    outputs = inference.predict(finished.model, part.images)
    np.testing.assert_array_equal(outputs.argmax(axis=1), plain.outputs.argmax(axis=1))
    again = finish(a, trained)
    assert again.task == finished.task and again.calibration == finished.calibration


@pytest.mark.parametrize("name", ["classes", "few", "constant"])
def test_nothing_is_calibrated_where_the_examples_do_not_allow_it(name, capsys):
    a = answered("size" if name == "few" else "shape", 0, count=20 if name == "few" else 60)
    trained, _ = network(a.task.kind, len(a.task.names))
    if name == "classes":
        a = a.at(np.flatnonzero(a.labels != 1))
    if name == "constant":
        trained.set_weights([np.zeros_like(weights) for weights in trained.get_weights()])
    finished = finish(a, trained)
    assert finished.task.temperature is None and finished.task.residuals is None and finished.calibration == {}
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{a.task.name}: not calibrated: ")


def test_a_calibrated_value_is_answered_with_bounds():
    a = answered("size", 0, count=400)
    kind = kinds.find("value")
    task = kind.calibrate(a, calibration.temperature)
    judged = kind.judge(replace(a, task=task))
    assert judged["coverage"] == pytest.approx(0.95, abs=0.01)
    (answer,) = kind.decode(task, a.outputs[:1])
    assert list(answer) == ["value", "low", "high"] and answer["low"] < answer["high"]


@pytest.mark.parametrize("name", PROBABILITIES)
def test_probabilities_of_0_and_1_can_be_tempered(name):
    a = answered(name, 0)
    extreme = replace(a, outputs=(guesses(a.task, len(a.labels), 0) > 0.5).astype(np.float32))
    assert np.isfinite(calibration.tempered(extreme, 0.2).outputs).all()


def test_calibration_needs_validation_images(tmp_path):
    tree = {
        "seed": 0,
        "data": {"source": "folder", "path": "images", "validation": 0},
        "tasks": {"one": {"recipe": "any"}},
        "hardware": {"threads": 1, "strategy": "auto"},
        "recipes": {"any": recipe(calibrate="temperature").model_dump()},
    }
    with pytest.raises(ValueError, match=r"recipes\.any\.calibrate"):
        Params.model_validate(tree)
    for change in ({"validation": 5}, {"source": "table"}):  # a table may have a column `split`
        Params.model_validate({**tree, "data": {**tree["data"], **change}})


def test_a_kind_of_a_persons_own_may_refuse(capsys):
    with pytest.raises(UserError):
        kinds.find("stars:KIND").calibrate(answered("size", 0), calibration.temperature)
