"""Files named .keras that hold something else, or more than anyone wrote: one line that says what, and no memory."""

from __future__ import annotations

import io
import json
import resource
import time
import zipfile

import h5py
import keras
import numpy as np
import pytest
from conftest import task_spec

from mtl.errors import UserError
from mtl.networks import archives, saving

pytestmark = pytest.mark.usefixtures("tensorflow")


@pytest.fixture
def members(tmp_path):
    """Name and content of what a small model is made of."""
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="last")(inputs), name="small")
    saving.write(model, tmp_path / "good.keras", task_spec("t", ("a", "b", "c")))
    saving.read(tmp_path / "good.keras")
    with zipfile.ZipFile(tmp_path / "good.keras") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(members, **how) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", **how) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return content.getvalue()


def config(members, change) -> bytes:
    tree = json.loads(members["config.json"])
    change(tree["config"]["layers"][1])
    return packed(members | {"config.json": json.dumps(tree).encode()})


def hdf5(members) -> bytes:
    return members["model.weights.h5"]


def damaged(members) -> bytes:
    """One bit of the weights is another one."""
    content = bytearray(packed(members))
    content[content.index(b"\x89HDF") + 1000] ^= 1
    return bytes(content)


def unknown_layer(members) -> bytes:
    own = {"module": "mine", "class_name": "Mine", "registered_name": "pkg>Mine"}
    return config(members, lambda layer: layer.update(own))


def nested(members) -> bytes:
    return packed(members | {"config.json": b'{"a":' * 100_000 + b"1" + b"}" * 100_000})


def deep(members) -> bytes:
    """Valid JSON, with a layer in a layer in a layer."""
    inner = {"class_name": "Dense", "config": {"units": 1}, "module": "keras.layers", "registered_name": None}
    for _ in range(400):
        inner = {"class_name": "TimeDistributed", "config": {"layer": inner}, "module": "keras.layers"}
    return config(members, lambda layer: layer.update(inner))


def huge(members) -> bytes:
    return config(members, lambda layer: layer["config"].update(units=10**9))


def bomb(members) -> bytes:
    return packed(members | {"assets/zeros": bytes(400_000_000)}, compression=zipfile.ZIP_DEFLATED)


def without_weights(members) -> bytes:
    return packed({name: member for name, member in members.items() if not name.endswith(".h5")})


def other_weights(members) -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.create_dataset("layers/dense/vars/0", data=np.zeros((2, 2)))
    return packed(members | {"model.weights.h5": content.getvalue()})


HERE = f"here is {keras.__version__}"
CASES = {
    "empty": (lambda members: b"", ["empty"]),
    "text": (lambda members: b"version https://git-lfs.github.com/spec/v1\noid", ["text", "version https"]),
    "noise": (lambda members: bytes(range(256)), ["no zip archive"]),
    "HDF5": (hdf5, ["HDF5", ".h5"]),
    "truncated": (lambda members: packed(members)[:-3000], ["zip archive"]),
    "truncated early": (lambda members: packed(members)[:100], ["zip archive"]),
    "a damaged bit": (damaged, ["model.weights.h5", "damaged"]),
    "another zip": (lambda members: packed({"x": b""}), ["config.json"]),
    "no weights": (without_weights, ["model.weights.h5"]),
    "other weights": (other_weights, [HERE]),
    "unknown layer": (unknown_layer, ["'Mine'", HERE]),
    "nested": (nested, ["nested", HERE]),
    "deep": (deep, [HERE]),
    "no JSON": (lambda members: packed(members | {"config.json": b"{"}), [HERE]),
    "no object": (lambda members: packed(members | {"config.json": b"3"}), [HERE]),
    "not UTF-8": (lambda members: packed(members | {"config.json": b"\xff\xfe\x00"}), [HERE]),
    "metadata": (lambda members: unknown_layer(members | {"metadata.json": b"[" * 100_000}), ["unknown Keras", HERE]),
    "huge": (huge, ["weights", "GB"]),
    "bomb": (bomb, ["unpacks", "MB"]),
}


@pytest.mark.parametrize("kind", CASES)
def test_what_is_no_model_is_one_short_line_that_names_it(tmp_path, members, kind):
    make, words = CASES[kind]
    path = tmp_path / "model1.keras"
    path.write_bytes(make(members))
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(UserError) as caught:
        saving.read(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: not a Keras model")
    assert "\n" not in said
    assert len(said.removeprefix(str(path))) < 500
    for word in words:
        assert word in said
    if kind in ("huge", "bomb"):
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
        assert time.process_time() - started < 5


def test_who_wrote_it_is_named(tmp_path, members):
    metadata = json.loads(members["metadata.json"]) | {"keras_version": "9.9.9"}
    path = tmp_path / "new.keras"
    path.write_bytes(unknown_layer(members | {"metadata.json": json.dumps(metadata).encode()}))
    with pytest.raises(UserError, match=r"written by Keras 9\.9\.9"):
        saving.read(path)


def test_what_is_packed_anew_by_other_hands_is_read(tmp_path, members):
    path = tmp_path / "packed.keras"
    path.write_bytes(packed(members, compression=zipfile.ZIP_DEFLATED))
    assert saving.read(path).count_params() == 15


def test_reading_does_not_count_the_names_of_layers(tmp_path, members):
    """Names count on within a process and are bytes of a saved model."""
    (tmp_path / "m.keras").write_bytes(packed(members))
    keras.utils.clear_session()
    archives.inspect(tmp_path / "m.keras")
    assert keras.layers.Dense(1).name == "dense"


def test_a_network_that_cannot_be_kept_is_named_without_a_temporary_path(members):
    class Mine(keras.layers.Layer):
        def call(self, x):
            return x

    inputs = keras.Input((4,))
    with pytest.raises(UserError) as caught:
        saving.check(keras.Model(inputs, Mine()(inputs), name="mine"))
    assert "'mine'" in str(caught.value)
    assert "'Mine'" in str(caught.value)
    assert "/tmp" not in str(caught.value)
