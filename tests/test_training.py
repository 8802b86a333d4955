"""Networks and their training: sizes as published, resumable to the byte, and errors in one line."""

from __future__ import annotations

import json
import os
import sys

import keras
import numpy as np
import pytest
from conftest import ROOT

from mtl.config import params
from mtl.config.recipes import Augmentation, Constant, Muon, OneCycle, Recipe, Sgd
from mtl.data import backend
from mtl.data.feeds import Arrays, Plan
from mtl.errors import UserError
from mtl.networks import catalog, inference, saving
from mtl.tasks import scores
from mtl.training import checkpoint, fitting, optimizers

pytestmark = pytest.mark.usefixtures("tensorflow")
SHAPE = (12, 12, 3)
SHIPPED = params.read(ROOT / "params.yaml").recipes


def recipe(**changes) -> Recipe:
    """A recipe of seconds."""
    base = Recipe(
        network="compact",
        options={"widths": [8, 8]},
        optimizer=Sgd(name="sgd", learning_rate=0.05, momentum=0.9),
        schedule=OneCycle(name="one_cycle", warmup=0.2),
        augmentation=Augmentation(flip=True, translate=2),
        batch_size=16,
        epochs=3,
    )
    return base.model_copy(update=changes)


def images(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise around a grey that tells the two classes apart."""
    rng = np.random.default_rng(seed)
    y = (np.arange(count) % 2).astype(np.uint8)
    x = rng.integers(0, 120, size=(count, *SHAPE)) + 100 * y[:, None, None, None]
    return x.astype(np.uint8), y


def fresh_model(used: Recipe, train: tuple[np.ndarray, np.ndarray]) -> keras.Model:
    backend.configure(params.Hardware(threads=1, strategy="auto"), used.precision, seed=0)
    return catalog.build(used, SHAPE, 2, train[0])


@pytest.mark.parametrize(("name", "classes", "count"), [("multiclass", 10, 11_576_962), ("binary", 2, 9_245_222)])
def test_published_networks_have_the_published_size(name, classes, count):
    model = catalog.build(SHIPPED[f"article_{name}"], (32, 32, 3), classes, np.zeros((4, 32, 32, 3), np.uint8))
    assert model.count_params() == count
    assert [layer.activation.__name__ for layer in model.layers if hasattr(layer, "kernel_size")] == ["linear"] * 3


@pytest.mark.parametrize("size", [(32, 32, 3), (17, 40, 3)])
def test_compact_takes_images_of_any_size_as_uint8_and_gives_probabilities(size):
    x = np.random.default_rng(0).integers(0, 256, size=(8, *size)).astype(np.uint8)
    model = catalog.build(SHIPPED["compact"], size, 4, x)
    p = inference.predict(model, x)
    assert (p.shape, p.dtype, model.inputs[0].dtype) == ((8, 4), np.float32, "uint8")
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)


def test_own_network_by_module_and_function(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import keras\n"
        "def flat(shape, classes, units=4):\n"
        "    inputs = keras.Input(shape, dtype='uint8')\n"
        "    x = keras.layers.Dense(units)(keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs)))\n"
        "    return keras.Model(inputs, keras.layers.Dense(classes, activation='softmax')(x))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    x, _ = images(4)
    model = catalog.build(recipe(network="mine:flat", options={"units": 5}), SHAPE, 2, x)
    assert model.layers[-2].units == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": "resnet"}, "network 'resnet': unknown; use one of article, compact"),
        ({"network": "nowhere:net"}, "network 'nowhere:net': No module named 'nowhere'"),
        ({"network": "keras:no_such"}, "network 'keras:no_such': "),
        ({"options": {"depth": 3}}, "network 'compact' with {'depth': 3}"),
        ({"network": "article", "options": {"dense": [4], "head": "softmax"}}, "network 'article' with"),
    ],
)
def test_networks_that_cannot_be_built_are_one_line(changes, message):
    with pytest.raises(UserError) as caught:
        catalog.build(recipe(**changes), SHAPE, 2, images(4)[0])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_image_is_seen_once_an_epoch_with_its_own_label():
    x = np.arange(50, dtype=np.uint8)[:, None, None, None] * np.ones((1, *SHAPE), np.uint8)
    plain = recipe(augmentation=Augmentation())
    got = list(Arrays(x, np.arange(50)).batches(Plan(plain, seed=0)))
    assert [len(batch) for batch, _ in got[:4]] == [16, 16, 16, 2]
    for epoch in range(3):
        seen = np.concatenate([batch[:, 0, 0, 0] for batch, _ in got[4 * epoch : 4 * epoch + 4]])
        said = np.concatenate([label for _, label in got[4 * epoch : 4 * epoch + 4]])
        assert sorted(seen) == list(range(50))
        assert (seen == said).all()


def test_batches_from_a_later_epoch_are_those_of_the_whole_training():
    x, y = images(40)
    whole = list(Arrays(x, y).batches(Plan(recipe(), seed=1)))
    rest = list(Arrays(x, y).batches(Plan(recipe(), seed=1, first_epoch=2)))
    for (a, b), (c, d) in zip(whole[6:], rest, strict=True):
        assert (a == c).all()
        assert (b == d).all()


def test_virtual_epochs_are_whole_batches_of_an_endless_stream():
    """12 of 20 images an epoch: the passes follow each other without a gap, each over every image."""
    x = np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones((1, *SHAPE), np.uint8)
    used = recipe(batch_size=6, steps_per_epoch=2, epochs=5, augmentation=Augmentation(flip=True, translate=2))
    feed = Arrays(x, np.arange(20))
    got = list(feed.batches(Plan(used, seed=0)))
    assert [len(batch) for batch, _ in got] == [6] * 10
    assert feed.steps(used) == 2
    labels = np.concatenate([labels for _, labels in got])
    for number in range(3):
        assert sorted(labels[20 * number : 20 * (number + 1)]) == list(range(20))
    rest = list(feed.batches(Plan(used, seed=0, first_epoch=3)))
    halves = [list(feed.batches(Plan(used, seed=0, worker=worker, workers=2))) for worker in (0, 1)]
    for (a, b), (c, d) in zip(got[6:], rest, strict=True):
        assert (a == c).all()
        assert (b == d).all()
    for (a, _), (even, _), (odd, _) in zip(got, *halves, strict=True):
        assert (a[::2] == even).all()
        assert (a[1::2] == odd).all()
    # As many steps as there are images: the same as without.
    whole = recipe(batch_size=5, epochs=2)
    for (a, _), (b, _) in zip(
        feed.batches(Plan(whole, 0)),
        feed.batches(Plan(whole.model_copy(update={"steps_per_epoch": 4}), 0)),
        strict=True,
    ):
        assert (a == b).all()


def test_several_steps_at_once_train_the_same_and_fit_into_an_epoch(tmp_path):
    train, none = Arrays(*images(32)), Arrays(*images(0))
    weights = []
    for count in (1, 2):
        used = recipe(epochs=2, steps_per_execution=count, steps_per_epoch=4)
        model = fresh_model(used, (train.images, train.labels))
        history, _ = fitting.fit(model, Plan(used, 0), train, none, tmp_path / str(count), verbose=0)
        assert [row["epoch"] for row in history] == [1, 2]
        weights.append(model.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    used = used.model_copy(update={"steps_per_execution": 3})
    with pytest.raises(UserError, match="steps_per_execution: 3 does not divide the 4 steps of an epoch"):
        fitting.fit(model, Plan(used, 0), train, none, tmp_path / "t", verbose=0)


def test_augmentation_moves_and_mirrors_and_no_more():
    """A moved image is the original shifted by at most two pixels, away from the border that reflection fills."""
    x, y = images(64)
    moved, _ = next(Arrays(x, y).batches(Plan(recipe(batch_size=64), seed=0)))
    assert (moved.dtype, moved.shape) == (np.uint8, (64, *SHAPE))
    order = np.random.default_rng([0, 0]).permutation(64)
    shifts = set()
    for image, original in zip(moved, x[order], strict=True):
        found = [
            (dy, dx, flip)
            for flip in (False, True)
            for dy in range(-2, 3)
            for dx in range(-2, 3)
            if ((image[:, ::-1] if flip else image)[2:-2, 2:-2] == original[2 + dy : 10 + dy, 2 + dx : 10 + dx]).all()
        ]
        assert len(found) == 1
        shifts |= set(found)
    assert {flip for _, _, flip in shifts} == {False, True}
    assert {dy for dy, _, _ in shifts} == set(range(-2, 3))


def test_one_cycle_by_hand():
    schedule = optimizers.OneCycleSchedule(peak=2.0, warmup=0.5, steps=3)
    assert [round(float(schedule(step)), 6) for step in range(3)] == [1.0, 2.0, 1.0]


def test_muon_steps_are_orthogonal_whatever_the_gradient():
    """All singular values of a step are near one: of its size, only the direction of the gradient is left."""
    gradient = np.random.default_rng(0).normal(size=(3, 3, 8, 16)) * np.geomspace(0.1, 1, 16)
    step = optimizers.ConvMuon().zeropower_via_newtonschulz5(keras.ops.convert_to_tensor(gradient, "float32"), 5)
    values = np.linalg.svd(np.reshape(step, (72, 16)), compute_uv=False)
    assert 0.5 < values.min() <= values.max() < 1.5


def test_a_batch_can_be_learnt_by_heart(tmp_path):
    train = images(16)
    used = recipe(epochs=30, augmentation=Augmentation(), schedule=Constant(name="constant"))
    model = fresh_model(used, train)
    empty = train[0][:0], train[1][:0]
    history, _ = fitting.fit(model, Plan(used, 0), Arrays(*train), Arrays(*empty), tmp_path / "t", verbose=0)
    assert history[-1]["acc"] == 1.0
    assert history[-1]["loss"] < history[0]["loss"] / 4


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    ("precision", "optimizer"),
    [
        ("float32", Sgd(name="sgd", learning_rate=0.05, momentum=0.9, weight_decay=0.01)),
        ("mixed_bfloat16", Muon(name="muon", learning_rate=0.1, momentum=0.6, weight_decay=0.01)),
    ],
)
def test_a_killed_training_ends_with_the_weights_of_one_that_was_not(tmp_path, precision, optimizer):
    train, validation = images(48), images(16, seed=1)
    used = recipe(precision=precision, optimizer=optimizer)

    def kill_after_first(row):
        if row["epoch"] == 1:
            raise Killed

    whole = fresh_model(used, train)
    history, _ = fitting.fit(whole, Plan(used, 0), Arrays(*train), Arrays(*validation), tmp_path / "whole", verbose=0)
    with pytest.raises(Killed):
        fitting.fit(
            fresh_model(used, train),
            Plan(used, 0),
            Arrays(*train),
            Arrays(*validation),
            tmp_path / "t",
            on_epoch=kill_after_first,
            verbose=0,
        )
    resumed, rows = fresh_model(used, train), []
    again, epochs = fitting.fit(
        resumed, Plan(used, 0), Arrays(*train), Arrays(*validation), tmp_path / "t", on_epoch=rows.append, verbose=0
    )
    assert again == history == rows
    assert epochs == 2
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def without(key):
    def damage(folder):
        state = json.loads((folder / "state.json").read_text())
        del state[key]
        (folder / "state.json").write_text(json.dumps(state))

    return damage


DAMAGES = {
    "a flipped bit": (lambda folder: flip(folder / "0002.weights.h5"), "0002.weights.h5", 1),
    "truncated": (lambda folder: os.truncate(folder / "0002.weights.h5", 1000), "0002.weights.h5", 1),
    "empty": (lambda folder: os.truncate(folder / "0002.weights.h5", 0), "0002.weights.h5", 1),
    "gone": (lambda folder: (folder / "0002.weights.h5").unlink(), "0002.weights.h5", 1),
    "both": (lambda folder: [flip(path) for path in folder.glob("*.h5")], "0001.weights.h5", 0),
    "no digest": (without("digest"), "state.json", 0),
    "no history": (without("history"), "state.json", 0),
    "another number": (lambda folder: flip(folder / "state.json"), "state.json", 0),
    "no JSON": (lambda folder: (folder / "state.json").write_bytes(b'{"digest": '), "state.json", 0),
    "a list": (lambda folder: (folder / "state.json").write_text("[]"), "state.json", 0),
    "not UTF-8": (lambda folder: (folder / "state.json").write_bytes(b"\xff"), "state.json", 0),
    "nested": (lambda folder: (folder / "state.json").write_text("[" * 100_000), "state.json", 0),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_passed_over(tmp_path, capsys, kind):
    """For the epoch before it, or for the beginning."""
    damage, named, epoch = DAMAGES[kind]
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    state = checkpoint.Checkpoint(tmp_path, "0" * 32)
    for number in (1, 2):
        state.save(model, {"epoch": number, "loss": 1 / number})
    assert checkpoint.Checkpoint(tmp_path, "0" * 32).history == state.history
    assert capsys.readouterr().out == ""
    damage(tmp_path)
    left = checkpoint.Checkpoint(tmp_path, "0" * 32)
    assert named in capsys.readouterr().out
    assert left.history == state.history[:epoch]


def test_a_training_with_a_damaged_checkpoint_ends_with_the_weights_of_one_that_was_not_killed(tmp_path):
    train, validation = images(48), images(16, seed=1)

    def kill_after_second(row):
        if row["epoch"] == 2:
            raise Killed

    def fit(where, **how):
        model = fresh_model(recipe(), train)
        fed = Arrays(*train), Arrays(*validation)
        return model, *fitting.fit(model, Plan(recipe(), 0), *fed, where, verbose=0, **how)

    whole, history, _ = fit(tmp_path / "whole")
    with pytest.raises(Killed):
        fit(tmp_path / "t", on_epoch=kill_after_second)
    flip(tmp_path / "t" / "0002.weights.h5")
    resumed, again, epochs = fit(tmp_path / "t")
    assert (again, epochs) == (history, 2)
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        assert a.tobytes() == b.tobytes()


def test_what_is_kept_of_the_best_epoch_is_checked_too(tmp_path):
    best, none = lambda rows: min(rows, key=lambda row: row["val_loss"])["epoch"], "0" * 32
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    losses = [0.5, 0.3, 0.4, 0.6]
    state = checkpoint.Checkpoint(tmp_path, none, best)
    for epoch, loss in enumerate(losses, 1):
        state.save(model, {"epoch": epoch, "val_loss": loss})
    assert sorted(path.name[:4] for path in tmp_path.glob("*.h5")) == ["0002", "0003", "0004"]
    flip(state.weights(4))
    assert checkpoint.Checkpoint(tmp_path, none, best).epoch == 3
    with pytest.raises(UserError, match=r"0004.weights.h5 is damaged"):
        state.load(model, 4)
    flip(state.weights(2))
    assert checkpoint.Checkpoint(tmp_path, none, best).epoch == 0


def test_a_state_of_another_training_is_not_taken_up(tmp_path):
    train, validation = images(32), images(16, seed=1)
    for used in (recipe(epochs=1), recipe(epochs=1, batch_size=8)):
        history, _ = fitting.fit(
            fresh_model(used, train), Plan(used, 0), Arrays(*train), Arrays(*validation), tmp_path / "t", verbose=0
        )
        assert len(history) == 1
    first, _ = fitting.fit(
        fresh_model(used, train), Plan(used, 0), Arrays(*train), Arrays(*validation), tmp_path / "other", verbose=0
    )
    assert history == first


def test_keep_best_is_the_epoch_of_the_smallest_validation_loss(tmp_path):
    train, validation = images(48), images(16, seed=1)
    best, last = recipe(keep="best", epochs=4), recipe(keep="last", epochs=4)
    model = fresh_model(best, train)
    history, _ = fitting.fit(model, Plan(best, 0), Arrays(*train), Arrays(*validation), tmp_path / "t", verbose=0)
    losses = [row["val_loss"] for row in history]
    kept = scores.loss(inference.predict(model, validation[0]), validation[1], "categorical_crossentropy")
    assert kept == pytest.approx(min(losses), rel=1e-4)
    rows = [{"epoch": 1, "val_loss": 0.5}, {"epoch": 2, "val_loss": 0.3}, {"epoch": 3, "val_loss": 0.3}]
    assert (fitting.best_epoch(rows, best), fitting.best_epoch(rows, last)) == (2, 3)


def test_a_loss_that_is_no_number_stops_the_training(tmp_path):
    train = images(32)
    used = recipe(optimizer=Sgd(name="sgd", learning_rate=1e30), schedule=Constant(name="constant"))
    with pytest.raises(UserError, match=r"(val_)?loss became (nan|inf) in epoch \d: no model is kept"):
        fitting.fit(
            fresh_model(used, train), Plan(used, 0), Arrays(*train), Arrays(*images(16)), tmp_path / "t", verbose=0
        )


def test_a_saved_model_is_the_same_bytes_and_gives_the_same_answers(tmp_path):
    train = images(16)
    saved = []
    for _ in range(2):
        model = inference.plain(fresh_model(recipe(precision="mixed_bfloat16"), train))
        saving.write(model, tmp_path / "m.keras")
        saved.append((tmp_path / "m.keras").read_bytes())
    assert saved[0] == saved[1]
    loaded = saving.read(tmp_path / "m.keras")
    assert (inference.predict(loaded, train[0]) == inference.predict(model, train[0])).all()


def test_a_model_with_code_inside_is_refused(tmp_path):
    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1)(inputs)).save(tmp_path / "bad.keras")
    with pytest.raises(UserError, match=r"bad.keras: not a Keras model that loads in safe mode"):
        saving.read(tmp_path / "bad.keras")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off"])
def test_a_broken_model_file_is_one_line(tmp_path, content):
    (tmp_path / "cut.keras").write_bytes(content)
    with pytest.raises(UserError, match=r"cut.keras: not a Keras model") as caught:
        saving.read(tmp_path / "cut.keras")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("native", "gpus", "expected"),
    [
        (True, [], "mixed_bfloat16"),
        (False, [], "float32"),
        (False, ["0"], "mixed_bfloat16"),
        (None, [], "mixed_bfloat16"),
    ],
)
def test_auto_is_bfloat16_where_it_is_not_emulated(monkeypatch, native, gpus, expected):
    monkeypatch.setattr(backend, "native_bfloat16", lambda: native)
    assert backend.resolve(recipe(precision="auto"), gpus) == recipe(precision=expected)
    for stated in ("float32", "mixed_bfloat16"):
        assert backend.resolve(recipe(precision=stated), gpus).precision == stated
