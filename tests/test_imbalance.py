"""Rare classes: their weights in the loss, and what is refused in `class_weight`."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from pydantic import ValidationError
from ruamel.yaml import YAML
from sklearn.utils.class_weight import compute_class_weight
from test_training import fresh_model, images, recipe

from mtl.config.params import Params
from mtl.config.reading import first_line, validate
from mtl.data.feeds import Arrays, Plan
from mtl.errors import UserError
from mtl.tasks import heads as of_heads
from mtl.tasks import weights
from mtl.tasks.spec import TaskSpec
from mtl.tasks.targets import Head
from mtl.training import fitting, losses
from mtl.training.multiworker import loop

pytestmark = pytest.mark.usefixtures("tensorflow")


def spec(*counts: int, names: tuple[str, ...] = ("cat", "dog", "ship")) -> TaskSpec:
    names = names[: len(counts)]
    shares = tuple((np.array(counts) / sum(counts)).tolist())
    groups = {name: name for name in names}
    return TaskSpec(name="model1", columns=("class",), names=names, groups=groups, frequencies=shares)


def test_balanced_is_scikit_learns_formula():
    counts = (7, 2, 1)
    labels = np.repeat(np.arange(3), counts)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert weights.of_classes("balanced", spec(*counts), "here") == pytest.approx(expected.tolist())
    assert weights.of_classes({"dog": 2.5}, spec(*counts), "here") == (1, 2.5, 1)
    assert weights.of_classes(None, spec(*counts), "here") is None


@pytest.mark.parametrize("name", ["categorical_crossentropy", "binary_crossentropy"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_weight_multiplies_the_loss_of_its_images(name, smoothing):
    kind = {"categorical_crossentropy": "CategoricalCrossentropy", "binary_crossentropy": "BinaryCrossentropy"}[name]
    plain = getattr(keras.losses, kind)(label_smoothing=smoothing)
    y, of_class = np.array([0, 2, 1, 0]), (0.5, 3.0, 2.0)
    p = np.random.default_rng(0).dirichlet(np.ones(3), 4).astype(np.float32)
    one_hot = of_heads.encode(y, [Head(3)])
    used = recipe(loss=name, label_smoothing=smoothing)
    weighted = losses.summed(used, [Head(3, class_weights=of_class)])
    by_keras = plain(one_hot, p, sample_weight=np.array(of_class, np.float32)[y])
    assert float(weighted(one_hot, p)) == pytest.approx(float(by_keras), rel=1e-6)
    two = losses.summed(used, [Head(3, class_weights=of_class), Head(3, weight=0.5)])
    both = float(two(np.hstack([one_hot, one_hot]), np.hstack([p, p])))
    assert both == pytest.approx(float(by_keras) + 0.5 * float(plain(one_hot, p)), rel=1e-6)


def test_weights_of_one_change_nothing_and_others_do(tmp_path):
    fed, used = images(40), recipe(epochs=1)
    ends = {}
    for name, of_class in {"none": None, "ones": (1.0, 1.0), "rare": (0.1, 5.0)}.items():
        model = fresh_model(used, fed)
        heads = [Head(2, class_weights=of_class)]
        fitting.fit(model, Plan(used, 0, tuple(heads)), Arrays(*fed), Arrays(*images(8)), tmp_path / name, verbose=0)
        ends[name] = model.get_weights()
    assert losses.summed(used, [Head(2)]).name == "categorical_crossentropy"
    for a, b in zip(ends["none"], ends["ones"], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(ends["none"], ends["rare"], strict=True))


def test_fit_and_the_loop_of_several_workers_take_the_same_step(monkeypatch):
    """One batch, by Keras with sample weights and by the custom loop's own step: the same weights and the same sums."""
    used, (x, y), of_class = recipe(epochs=1, label_smoothing=0.1), images(16), (0.25, 4.0)
    heads = [Head(2, class_weights=of_class)]
    plain = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    one_hot, weight = of_heads.encode(y, heads), np.array(of_class, np.float32)[y]
    ends, logs = [], []
    for how in ("keras", "loop"):
        model = fresh_model(used, (x, y))
        loss = plain if how == "keras" else losses.summed(used, heads)
        model.compile(keras.optimizers.SGD(0.05), loss, weighted_metrics=[] if how == "keras" else None)
        model.optimizer.build(model.trainable_variables)
        if how == "keras":
            logs.append(float(model.train_on_batch(x, one_hot, sample_weight=weight)))
        else:
            step = loop._step(model, heads)
            sums = model.distribute_strategy.run(
                tf.function(step), args=(tf.constant(x), tf.constant(one_hot), tf.constant(16.0))
            )
            logs.append(float(sums[0] / sums[2]))
        ends.append(model.get_weights())
    assert logs[0] == pytest.approx(logs[1], rel=1e-5)
    for a, b in zip(*ends, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def changed(class_weight: object) -> Params:
    tree = YAML(typ="safe").load(ROOT / "params.yaml")
    tree["recipes"]["compact"]["class_weight"] = class_weight
    return validate(json.loads(json.dumps(tree)), Params)


@pytest.mark.parametrize("class_weight", [{"cat": 0}, {"cat": -1}, {"cat": True}, {}, "balance", 3, [1, 2]])
def test_a_class_weight_that_is_none_is_one_line(class_weight):
    with pytest.raises(ValidationError) as error:
        changed(class_weight)
    line = first_line(error.value)
    assert line.startswith("recipes.compact.class_weight")
    assert "\n" not in line
    assert not line.startswith(("recipes.compact.class_weight.rule", "recipes.compact.class_weight.mapping"))


def test_an_unknown_class_is_named_with_the_nearest_and_the_task():
    settings = changed({"airplane": 2.0, "shipp": 3})
    names = ("airplane", "ship")
    with pytest.raises(UserError, match=r"recipes\.compact\.class_weight: task model1 .*'shipp'.*'ship'"):
        of_heads.of_task(settings, spec(1, 1, names=names))
    balanced = of_heads.of_task(changed("balanced"), spec(3, 1, names=names))
    assert balanced.class_weights == pytest.approx((2 / 3, 2))
