"""Several tasks in one network: the targets, the loss and the accuracy of its heads; what a network costs."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from test_training import SHAPE, images, recipe

from mtl.config import params
from mtl.config.recipes import Recipe
from mtl.data import backend
from mtl.data.feeds import Arrays, Plan
from mtl.errors import UserError
from mtl.networks import catalog, inference
from mtl.tasks import heads, targets
from mtl.tasks.targets import Head
from mtl.training import fitting, losses

pytestmark = pytest.mark.usefixtures("tensorflow")
TWO = [Head(3), Head(2, weight=0.5)]
LABELS = np.array([[0, 1], [2, 0]], np.uint8)
P = np.array([[0.5, 0.3, 0.2, 0.4, 0.6], [0.6, 0.3, 0.1, 0.2, 0.8]], np.float32)


def test_targets_stand_side_by_side():
    np.testing.assert_array_equal(heads.encode(LABELS, TWO), [[1, 0, 0, 0, 1], [0, 0, 1, 1, 0]])
    np.testing.assert_array_equal(heads.encode(LABELS[:, 0], [Head(3)]), np.eye(3)[[0, 2]])


def test_the_loss_is_the_weighted_sum_and_acc_the_mean():
    loss = losses.summed(recipe(), TWO)
    expected = -np.log([0.5, 0.1]) - 0.5 * np.log([0.6, 0.2])
    assert float(loss(heads.encode(LABELS, TWO), P)) == pytest.approx(expected.mean(), rel=1e-5)
    (acc,) = losses.accuracy(TWO)
    acc.update_state(heads.encode(LABELS, TWO), P)
    assert float(acc.result()) == 0.5  # both heads are right on the first image and wrong on the second
    assert acc.name == "acc"


def test_one_head_is_trained_by_the_plain_loss():
    plain = keras.losses.CategoricalCrossentropy
    assert type(losses.summed(recipe(), [Head(3)])) is plain
    assert type(losses.summed(recipe(), [Head(3, weight=0.5)])) is not plain


def shared() -> tuple[keras.Model, Recipe]:
    used = recipe(options={"widths": [8, 8], "heads": [2, 3]})
    backend.configure(params.Hardware(threads=1, strategy="auto"), used.precision, seed=0)
    return catalog.build(used, SHAPE, 5, images(40)[0]), used


def test_each_head_gives_probabilities_on_one_trunk():
    model, _ = shared()
    p = inference.predict(inference.plain(model), images(6)[0])
    for part in targets.columns([Head(2), Head(3)]):
        np.testing.assert_allclose(p[:, part].sum(axis=1), 1, atol=1e-5)
    alone = catalog.build(recipe(), SHAPE, 2, images(4)[0])
    assert model.count_params() == alone.count_params() + 3 * 8


def test_heads_that_do_not_add_up_are_one_line():
    with pytest.raises(UserError, match=r"heads of \[2, 3\] outputs do not add up to 4"):
        catalog.build(recipe(options={"widths": [8], "heads": [2, 3]}), SHAPE, 4, images(4)[0])


def test_a_shared_network_learns_both_tasks_and_goes_on_where_it_was_killed(tmp_path):
    x, y = images(64)
    both = np.stack([y, 2 * y], axis=1)
    fed = Arrays(x, both), Arrays(x[:8], both[:8])
    two, weights = [Head(2), Head(3)], []
    for stop in (False, True):
        folder = tmp_path / str(stop)
        model, used = shared()
        used = used.model_copy(update={"epochs": 6})

        def stop_after_two(row, stop=stop):
            if stop and row["epoch"] == 2:
                raise KeyboardInterrupt

        try:
            fitting.fit(model, Plan(used, 0, tuple(two)), *fed, folder, stop_after_two, verbose=0)
        except KeyboardInterrupt:
            model, _ = shared()
            history, now = fitting.fit(model, Plan(used, 0, tuple(two)), *fed, folder, verbose=0)
            assert (len(history), now) == (6, 4)
        weights.append(model.get_weights())
    for whole, resumed in zip(*weights, strict=True):
        np.testing.assert_array_equal(whole, resumed)
    p = inference.predict(model, x)
    assert (p[:, :2].argmax(axis=1) == y).mean() > 0.9
    assert (p[:, 2:].argmax(axis=1) == 2 * y).mean() > 0.9


def test_a_convolution_may_begin_by_passing_its_channels_on():
    def kernels(**options):
        model = catalog.build(recipe(options={"widths": [8, 32], **options}), SHAPE, 2, images(4)[0])
        return [layer.get_weights()[0] for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]

    (white, *drawn), (same, *passing) = kernels(), kernels(identity=True)
    np.testing.assert_array_equal(white, same)
    for plain, kernel in zip(drawn, passing, strict=True):
        first = min(kernel.shape[2:])
        np.testing.assert_array_equal(kernel[1, 1, :first, :first], np.eye(first))
        assert kernel[..., :first].sum() == first
        assert kernel[..., first:].size == 0 or kernel[..., first:].std() == pytest.approx(plain.std(), rel=0.2)


def test_multiply_adds_by_hand():
    model = catalog.build(recipe(options={"widths": [8]}), SHAPE, 2, images(4)[0])
    whitening, first, second, dense = 11 * 11 * 4 * 3 * 24, 11 * 11 * 9 * 24 * 8, 5 * 5 * 9 * 8 * 8, 8 * 2
    assert inference.multiply_adds(model) == whitening + first + second + dense
