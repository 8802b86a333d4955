"""TensorBoard: what is written under logs/, read as TensorBoard reads it, and that it changes no result."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf
from conftest import task_spec
from test_training import fresh_model, images, recipe

from mtl.config import recipes
from mtl.data.feeds import Arrays, Plan
from mtl.networks import inference, saving
from mtl.tracking import boards
from mtl.training import fitting

pytestmark = pytest.mark.usefixtures("tensorflow")
CLASSES = ["dark", "light"]


def trained(tmp_path: Path, name: str, held_out: int = 16, **changes) -> bytes:
    """Train for two epochs with the working directory as it is; the bytes of the saved model."""
    used = recipe(epochs=2, **changes)
    fed, validation = Arrays(*images(48)), Arrays(*images(held_out, seed=1))
    called = boards.callbacks(used, task_spec("task", CLASSES), fed, validation)
    model = fresh_model(used, images(48))
    fitting.fit(model, Plan(used, 0), fed, validation, tmp_path / f"{name}-state", verbose=0, callbacks=called)
    saving.write(inference.plain(model), tmp_path / f"{name}.keras", task_spec("task", CLASSES))
    return (tmp_path / f"{name}.keras").read_bytes()


def events(folder: Path) -> dict[str, list[tuple[int, tf.compat.v1.Summary.Value]]]:
    """The values of each tag, with their steps, of the event files in a folder; the graph is the tag `graph`."""
    found: dict[str, list] = {}
    for file in sorted(folder.glob("events.out.tfevents.*")):
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            if event.graph_def:
                found.setdefault("graph", []).append((event.step, event.graph_def))
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value))
    return found


def test_a_board_changes_no_byte_and_has_what_it_promises(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain = trained(tmp_path, "plain")
    assert not (tmp_path / "logs").exists()
    assert trained(tmp_path, "shown", tensorboard=True) == plain

    train, validation = (events(tmp_path / "logs/task" / split) for split in ("train", "validation"))
    for split in (train, validation):
        for tag in ("loss", "acc"):
            assert [step for step, _ in split[tag]] == [1, 2]
            assert all(value.simple_value > 0 for _, value in split[tag])
    assert [step for step, _ in train["learning_rate"]] == [1, 2]
    histograms = {tag: values for tag, values in train.items() if values[0][1] is not None and "/" in tag}
    assert {"conv2d/kernel", "dense/kernel"} <= {tag.split("_")[0] if "dense" in tag else tag for tag in histograms}
    for values in histograms.values():
        assert [step for step, _ in values] == [1, 2]
        assert all(sum(value.histo.bucket) == value.histo.num > 0 for _, value in values)
    graph = tf.compat.v1.GraphDef.FromString(train["graph"][0][1])
    assert any(node.op == "Conv2D" for node in graph.node)
    pictures = [value.image for _, value in (*train["images"], *validation["confusion"])]
    assert len(pictures) == 3
    for picture in pictures:
        shape = tf.io.decode_png(picture.encoded_image_string).shape
        assert tuple(shape) == (picture.height, picture.width, picture.colorspace)


@pytest.mark.slow
def test_a_new_training_writes_a_new_board_and_one_that_goes_on_adds_to_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        trained(tmp_path, "same", tensorboard=True)  # the second time its state says that nothing is left to do
        assert [step for step, _ in events(tmp_path / "logs/task/train")["loss"]] == [1, 2]
    trained(tmp_path, "new", tensorboard=True)
    assert [step for step, _ in events(tmp_path / "logs/task/train")["loss"]] == [1, 2]

    class Killed(Exception):
        pass

    def kill(row):
        raise Killed

    used, fed, none = recipe(epochs=2, tensorboard=True), Arrays(*images(48)), Arrays(*images(0))
    for on_epoch in (kill, lambda row: None):
        called = boards.callbacks(used, task_spec("killed", CLASSES), fed, none)
        model = fresh_model(used, images(48))
        try:
            fitting.fit(model, Plan(used, 0), fed, none, tmp_path / "k", on_epoch, verbose=0, callbacks=called)
        except Killed:
            (tmp_path / "logs/killed/mine").write_text("")
    assert (tmp_path / "logs/killed/mine").exists()
    assert [step for step, _ in events(tmp_path / "logs/killed/train")["loss"]] == [2]
    assert not (tmp_path / "logs/killed/validation").exists()


@pytest.mark.slow
def test_a_profile_is_written_when_asked(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    trained(tmp_path, "profiled", tensorboard=recipes.Board(profile=(2, 3)))
    assert list((tmp_path / "logs/task/plugins/profile").glob("*/*.xplane.pb"))
    trained(tmp_path, "late", tensorboard=recipes.Board(profile=(7, 9)))
    assert "tensorboard: no profile: the training ended after step 6, before 7" in capsys.readouterr().out
