"""A project of three tiny models, one of each kind; what they answer is known by the colour of the picture."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
from conftest import task_spec

from mtl import files
from mtl.data import paths
from mtl.data.store import Dataset
from mtl.tasks.spec import TaskSpec

SHAPE = (8, 8, 3)
SIZE = 100.0  # what `size` answers to a picture that is not blue; a blue one makes it twice that
TASKS = {
    "shape": task_spec("shape", ("disc", "bar"), column="shape"),
    "flaws": TaskSpec(
        name="flaws",
        kind="multilabel",
        columns=("dent", "scratch"),
        names=("dent", "scratch"),
        frequencies=(0.5, 0.25),
        thresholds=(0.5, 0.9),
    ),
    "size": TaskSpec(
        name="size", kind="value", columns=("size",), names=("size",), unit="mm", mean=SIZE, deviation=SIZE / 2
    ),
}
PARAMS = """
seed: 0
data: {source: table, path: in, size: null, validation: 0.1}
tasks:
  shape: {column: shape, recipe: tiny}
  flaws: {kind: multilabel, columns: [dent, scratch], recipe: tiny}
  size: {kind: value, column: size, unit: mm, recipe: tiny}
hardware: {threads: 1, strategy: auto}
recipes:
  tiny:
    network: compact
    options: {widths: [4]}
    optimizer: {name: muon, learning_rate: 0.05, momentum: 0.6}
    schedule: {name: one_cycle, warmup: 0.2}
    batch_size: 8
    epochs: 1
"""
RED, GREEN, BLUE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)


def picture(colour: tuple[int, int, int]) -> np.ndarray:
    """A plain image, uint8 SHAPE."""
    return np.broadcast_to(np.array(colour, np.uint8), SHAPE)


def _network(task: TaskSpec):
    """Red is a bar, green a dent; both are a scratch too, but less likely than its threshold asks for."""
    import keras

    from mtl.tasks import kinds

    inputs = keras.Input(SHAPE, dtype="uint8")
    colour = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
    activation = {"classes": "softmax", "multilabel": "sigmoid", "value": "linear"}[task.kind]
    dense = keras.layers.Dense(len(task.names), activation=activation)
    network = keras.Model(inputs, dense(colour))
    kernel, bias = {
        "shape": ([[0, 8], [0, 0], [0, 0]], [4, 0]),
        "flaws": ([[0, 5], [8, 5], [0, 0]], [-4, -4]),
        "size": ([[0], [0], [2]], [0]),
    }[task.name]
    dense.set_weights([np.array(kernel, np.float32), np.array(bias, np.float32)])
    return kinds.find(task.kind).finish(network, task)


def write(folder: Path) -> Path:
    """A folder with labels, test images and the models, as the DAG leaves them; thresholds are in the models alone."""
    from mtl.networks import saving

    labels = {
        "shape": np.array([1, 0, 0, 0], np.uint8),
        "flaws": np.array([[0, 1], [1, 1], [0, 0], [0, 0]], np.uint8),
        "size": np.array([100, 100, 200, 120], np.float64),
    }
    files.write_bytes(folder / "params.yaml", PARAMS.encode())
    files.write_array(folder / paths.IMAGES / "x_test.npy", np.stack([picture(c) for c in (RED, GREEN, BLUE, BLACK)]))
    dataset = Dataset("n", "table", {}, "png", 4, 0, 4, SHAPE, {})
    files.write_json(folder / paths.DATASET, asdict(dataset))
    for name, task in TASKS.items():
        place = folder / paths.LABELS / name
        files.write_json(place / paths.TASK, task.model_copy(update={"thresholds": None}).document())
        files.write_array(place / "y_test.npy", labels[name])
        saving.write(_network(task), folder / paths.model_path(name), task)
    return folder
