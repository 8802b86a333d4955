"""What is refused of tasks of the kinds multilabel and value: in one line, exit status 1, before training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from conftest import ROOT
from images import encoded, pixels, write_tree

from mtl import errors
from mtl.config import params
from mtl.config.gate import Gate
from mtl.errors import UserError
from mtl.release import promotion
from mtl.search import opening
from mtl.stages import check_params, derive_labels, load_data, train

VALUE, LABELS = {"kind": "value", "column": "x"}, {"kind": "multilabel", "columns": ["x", "y"]}
NAMES = {"kind": "multilabel", "column": "x", "delimiter": "|"}
X, Y, TEST = ["1", "0", "1", "0", "1", "0", "1", "0"], ["0", "0", "1", "1", "0", "0", "1", "1"], slice(4, 6)
SPLITS = ["train"] * 4 + ["test"] * 2 + ["validation"] * 2
RECIPE = {
    "network": "compact",
    "options": {"widths": [4]},
    "optimizer": {"name": "adam"},
    "batch_size": 4,
    "epochs": 1,
}


def write(
    folder: Path, task: Mapping[str, Any], x: list[str] = X, y: list[str] = Y, **recipe: object
) -> dict[str, Any]:
    """A table of eight images, and parameters with one task `t`; returns the parameters."""
    rows = zip(range(8), x, y, SPLITS, strict=True)
    lines = ["image;x;y;split", *(f"{index}.png;{a};{b};{split}" for index, a, b, split in rows)]
    write_tree(folder / "in", {"t.csv": "\n".join([*lines, ""]).encode()})
    write_tree(folder / "in", {f"{index}.png": encoded(pixels(index, 24, 24)) for index in range(8)})
    tree = {
        "seed": 0,
        "data": {"source": "table", "path": "in", "validation": 0},
        "tasks": {"t": {"recipe": "small", **task}},
        "hardware": {"threads": 1, "strategy": "auto"},
        "recipes": {"small": RECIPE | recipe},
    }
    (folder / "params.yaml").write_text(json.dumps(tree))
    return tree


@pytest.fixture(scope="module")
def store_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """MLflow's store of all these tests: to make one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store_uri: str) -> Iterator[Path]:
    """An empty folder as the working directory; what a stage sets in the environment is undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with mock.patch.dict(os.environ, {"MLFLOW_TRACKING_URI": store_uri}):
        yield tmp_path


def refusal(main: Callable[[], object]) -> str:
    """The line with which a stage ends."""
    with pytest.raises(SystemExit) as caught:
        errors.run(main)
    line = str(caught.value.code)  # text is printed, and the status is 1
    assert line.startswith("error: ") and "\n" not in line
    return line


def refused(main: Callable[[], object], *names: str) -> None:
    line = refusal(main)
    assert all(name in line for name in names), line


# --- columns


def with_cell(cell: str, row: int = 1, cells: list[str] = X) -> list[str]:
    return [*cells[:row], cell, *cells[row + 1 :]]


@pytest.mark.parametrize(
    ("task", "columns", "names"),
    [
        (VALUE, {"x": with_cell("many")}, ["'x'", "train", "row 2", "'many'", "data.missing"]),
        (VALUE, {"x": with_cell("inf")}, ["'x'", "train", "row 2", "inf"]),
        (VALUE, {"x": with_cell("-inf", 5)}, ["'x'", "test", "row 2", "inf"]),
        (VALUE, {"x": ["true", "false"] * 4}, ["'x'", "row 1", "True"]),
        (VALUE, {"x": ["7"] * 4 + ["1", "2", "3", "4"]}, ["'x'", "7", "training"]),
        (VALUE, {"x": [""] * 4 + ["1"] * 4}, ["'x'", "train"]),
        (VALUE, {"x": ["1", "2", "3", "4", "", "", "1", "2"]}, ["'x'", "test"]),
        (VALUE, {"x": [""] * 8}, ["'x'", "train"]),
        (VALUE, {"x": [f"170000000{digit}" for digit in range(8)]}, ["'x'", "170000000", "32 bits"]),
        (VALUE, {"x": with_cell("1e300")}, ["'x'", "row 2", "1e+300"]),
        (VALUE | {"transform": "log"}, {"x": with_cell("0", 1, ["1", "2"] * 4)}, ["'x'", "train", "row 2", "log"]),
        (VALUE | {"transform": "log"}, {"x": with_cell("-3", 6, ["1", "2"] * 4)}, ["'x'", "validation", "row 1", "-3"]),
        (LABELS, {"y": with_cell("2", 3, Y)}, ["'y'", "train", "row 4", "2"]),
        (LABELS, {"y": with_cell("yes", 4, Y)}, ["'y'", "test", "row 1", "'yes'"]),
        (LABELS, {"y": ["1"] * 4 + ["0"] * 4}, ["'y'", "always"]),
        (LABELS, {"x": ["0"] * 8}, ["'x'", "never"]),
        (LABELS, {"y": [""] * 8}, ["'y'", "train"]),
        (LABELS, {"y": ["0", "1", "0", "1", "", "", "1", "0"]}, ["'y'", "test"]),
        (NAMES, {"x": ["a|b", "a", "b", "a", "c|a", "b", "a", "b"]}, ["'x'", "c", "test"]),
        (NAMES, {"x": ["a", "a|b", "a", "a|b", "b", "a", "b", "a"]}, ["'a'", "always"]),
        (NAMES, {"x": ["|"] * 8}, ["'x'", "no label"]),
        (VALUE | {"column": "xx"}, {}, ["tasks.t.column", "'xx'", "'x'"]),
        (LABELS | {"columns": ["x", "yy"]}, {}, ["tasks.t.column", "'yy'", "'y'"]),
        ({"kind": "value"}, {}, ["tasks.t", "x | y"]),
        ({"kind": "nowhere:KIND", "columns": ["x"]}, {}, ["nowhere:KIND"]),
        ({"kind": "json:dumps", "columns": ["x"]}, {}, ["json:dumps", "derive"]),
    ],
)
def test_a_column_that_does_not_fit_the_kind_is_one_line(here, task, columns, names):
    write(here, task, **columns)
    load_data.load(params.read())
    refused(derive_labels.main, *names)
    assert not (here / "data/labels").exists()


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["9223372036854775807", "1"] * 4, [2.0**63, 1.0, 2.0**63, 1.0]),
        (["9007199254740993", "2"] * 4, [2.0**53, 2.0, 2.0**53, 2.0]),
    ],
)
def test_the_largest_whole_numbers_are_values(here, cells, expected):
    import numpy as np

    write(here, VALUE, x=cells)
    load_data.load(params.read())
    derive_labels.main()
    assert np.load("data/labels/t/y_train.npy").tolist() == expected


@pytest.mark.parametrize(
    ("answer", "x", "y"),
    [
        (
            "derived",
            ["1", "0", "", "", "1", "0", "1", "0"],
            ["", "", "1", "2", "1", "2", "1", "2"],
        ),  # nothing known of both
        ("combined", X, ["1", "2", "3", "4", "1", "2", "", ""]),  # no validation label
    ],
)
def test_an_answer_that_no_other_model_gives_is_refused_before_training(here, answer, x, y):
    tree = write(here, {"kind": "value", "column": "y", "answer": answer}, x=x, y=y)
    tree["tasks"]["s"] = {"recipe": "small", "column": "x"}
    tree["data"]["validation"] = 2  # held out by the column `split`
    (here / "params.yaml").write_text(json.dumps(tree))
    load_data.load(params.read())
    refused(derive_labels.main, "tasks.t.answer", answer)
    assert not (here / "data/labels").exists()


# --- parameters


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ({"kind": "multilabel", "columns": ["x"], "column": "y"}, ["tasks.t", "columns", "column"]),
        ({"kind": "multilabel", "columns": ["x"], "delimiter": "|"}, ["tasks.t", "delimiter"]),
        ({"kind": "multilabel", "column": "x"}, ["tasks.t", "delimiter"]),
        ({"kind": "multilabel"}, ["tasks.t", "columns"]),
        ({"kind": "multilabel", "columns": ["x", "x"]}, ["tasks.t", "columns", "twice"]),
        ({"kind": "multilabel", "columns": []}, ["tasks.t.columns"]),
        (NAMES | {"delimiter": ""}, ["tasks.t.delimiter"]),
        ({"kind": "number", "column": "x"}, ["tasks.t", "'number'", "classes", "multilabel", "value", "module:object"]),
        ({"kind": 3}, ["tasks.t", "kind"]),
        ({"kind": ["value"]}, ["tasks.t", "kind"]),
        ({"kind": "my-own:KIND", "columns": ["x"]}, ["tasks.t", "kind"]),
        (VALUE | {"unit": "u" * 21}, ["tasks.t.unit", "20 characters"]),
        (VALUE | {"labels": {"few": ["1"], "many": ["2"]}}, ["tasks.t.labels", "unknown key"]),
        (VALUE | {"delimiter": "|"}, ["tasks.t.delimiter", "unknown key"]),
        (LABELS | {"unit": "ms"}, ["tasks.t.unit", "unknown key"]),
        ({"column": "x", "transform": "log"}, ["tasks.t.transform", "unknown key"]),
        (VALUE | {"transform": "sqrt"}, ["tasks.t.transform", "log", "'sqrt'"]),
        (VALUE | {"unit": "ms" * 11}, ["tasks.t.unit"]),
    ],
)
def test_parameters_that_do_not_fit_the_kind_are_one_line(here, task, names):
    write(here, task)
    refused(check_params.main, "params.yaml", *names)


@pytest.mark.usefixtures("tensorflow")
@pytest.mark.parametrize(
    ("task", "recipe", "names"),
    [
        (VALUE, {"class_weight": "balanced"}, ["recipes.small.class_weight", "value"]),
        (LABELS, {"class_weight": {"x": 2.0}}, ["recipes.small.class_weight", "multilabel"]),
        (VALUE, {"loss": "categorical_crossentropy"}, ["recipes.small.loss", "value", "mse or mae or huber"]),
        (LABELS, {"loss": "mse"}, ["recipes.small.loss", "multilabel", "binary_crossentropy"]),
        ({"column": "x"}, {"loss": "huber"}, ["recipes.small.loss", "classes"]),
        (VALUE, {"network": "article", "options": {"dense": [2], "head": "softmax"}}, ["softmax", "value", "linear"]),
        (LABELS, {"network": "article", "options": {"dense": [2], "head": "softmax"}}, ["softmax", "multilabel"]),
        (VALUE, {"options": {"widths": [4], "activation": "sigmoid"}}, ["sigmoid", "value", "linear"]),
        (VALUE, {"network": "odd:two", "options": {}}, ["'odd:two'", "(None, 2)", "(None, 1)"]),
        (VALUE, {"network": "odd:probability", "options": {}}, ["'odd:probability'", "sigmoid", "value"]),
        (LABELS, {"network": "odd:logits", "options": {}}, ["'odd:logits'", "before it is trained", "sigmoid"]),
    ],
)
def test_a_recipe_that_does_not_fit_the_kind_is_one_line(here, task, recipe, names):
    (here / "odd.py").write_text(
        "import keras\n"
        "def net(shape, units, activation):\n"
        "    inputs = keras.Input(shape, dtype='uint8')\n"
        "    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))\n"
        "    return keras.Model(inputs, keras.layers.Dense(units, activation=activation)(x))\n"
        "def two(shape, classes):\n    return net(shape, 2, None)\n"
        "def probability(shape, classes):\n    return net(shape, classes, 'sigmoid')\n"
        "def logits(shape, classes):\n    return net(shape, classes, None)\n"
    )
    sys.modules.pop("odd", None)
    write(here, task, **recipe)
    load_data.load(params.read())
    derive_labels.main()
    refused(lambda: train.main("t"), *names)
    assert not (here / "models").exists()


# --- scores


@pytest.mark.parametrize(
    ("task", "score", "goal", "names"),
    [
        (VALUE, "acc", "maximize", ["value", "r2"]),
        (VALUE, "mae", "maximize", ["mae"]),
        (VALUE, "r2", "minimize", ["r2"]),
        (LABELS, "balanced_acc", "maximize", ["multilabel", "map"]),
        (LABELS, "map", "minimize", ["map"]),
        ({"column": "x"}, "r2", "maximize", ["classes", "acc"]),
    ],
)
def test_a_score_that_the_kind_does_not_have_is_one_line(here, task, score, goal, names):
    tree = write(here, task)
    load_data.load(params.read())
    derive_labels.main()
    if goal == "maximize":  # as the gate's minima are
        gate = Gate(minimum={"t": {score: 0.5}}, contradictions=1.0, significance=None)
        refused(lambda: promotion._check_scores(gate), f"promote.minimum.t.{score}", *names)
    searched = [{"name": "batch_size", "type": "integer", "min": 1, "max": 4}]
    tree["tune"] = {"metric": f"val_{score}", "goal": goal, "max_trials": 1, "parameters": searched}
    (here / "params.yaml").write_text(json.dumps(tree))
    refused(lambda: opening._check_metric("t", params.read().tune), f"tune.metric: val_{score}", *names)


def test_a_stage_ends_with_status_1_and_one_line(here):
    write(here, VALUE, x=with_cell("many"))
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    for name, status in (("load_data", 0), ("derive_labels", 1)):
        command = [sys.executable, ROOT / f"src/{name}.py"]
        done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == status
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert "'x'" in line and "Traceback" not in done.stderr


def test_an_unknown_kind_is_a_line_wherever_it_is_asked_for():
    from mtl.tasks import kinds

    with pytest.raises(UserError, match=r"'mask'.*classes, multilabel, value"):
        kinds.find("mask")
