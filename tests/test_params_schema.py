"""params.schema.json, by which editors check params.yaml: what the types give, and no stricter than they are."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from conftest import ROOT
from pydantic import ValidationError
from ruamel.yaml import YAML

from mtl.config import editing, params, schema
from mtl.config.params import Params
from mtl.config.reading import validate

SCHEMA = json.loads((ROOT / "params.schema.json").read_text(encoding="utf-8"))
SHIPPED = YAML(typ="safe").load(ROOT / "params.yaml")


def test_it_is_what_the_types_give():
    assert schema.schema() == SCHEMA, "run `make schema`"
    jsonschema_rs.meta.validate(SCHEMA)


def test_params_yaml_names_it_in_its_first_line_and_is_valid():
    first = (ROOT / "params.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=params.schema.json"
    assert jsonschema_rs.is_valid(SCHEMA, SHIPPED)


def use(key: str, value: Any) -> Callable[[dict], None]:
    def change(tree: dict) -> None:
        *sections, last = key.split(".")
        for section in sections:
            tree = tree[section]
        tree[last] = value

    return change


def drop(section: str, key: str) -> Callable[[dict], None]:
    return lambda tree: tree[section].pop(key)


MISTAKES = [
    use("data.sourc", "folder"),
    use("data.source", "imagenet"),
    use("data.validation", -1),
    use("data.validation", 1.5),
    use("data.size", "64"),
    use("tasks.Model 3", {"recipe": "compact"}),
    use("tasks.model1.recipes", "compact"),
    use("tasks.model1.kind", "values"),
    use("tasks.size_of", {"kind": "value", "column": "size", "transform": "sqrt", "recipe": "compact"}),
    drop("data", "validation"),
    lambda tree: tree.pop("tasks"),
    use("recipes.compact.optimizer", {"name": "adamw"}),
    use("recipes.compact.optimizer", {"name": "sgd"}),
    use("recipes.compact.epochs", 0),
    use("recipes.compact.class_weight", "balance"),
    use("recipes.compact.class_weight", {"cat": 0}),
    use("recipes.compact.network", "my-network"),
    use("promote.minimum", {"model1": {"F1": 0.5}}),
    use("promote.accuracy.model1", 85),
    use("tune.metric", "auc"),
    use("tune.parameters", [{"name": "batch_size", "type": "integer", "min": 1}]),
]


@pytest.mark.parametrize("change", MISTAKES)
def test_a_typical_mistake_is_refused_by_both(change):
    tree = copy.deepcopy(SHIPPED)
    change(tree)
    assert not jsonschema_rs.is_valid(SCHEMA, tree)
    with pytest.raises(ValidationError):
        validate(tree, Params)


GOOD = [
    use("data.validation", 0.1),
    use("data.missing", {"label": ["", "-1"]}),
    use("tasks.kind_of", {"column": "label", "recipe": "compact"}),
    use("tasks.faults", {"kind": "multilabel", "columns": ["scratch", "dent"], "recipe": "compact"}),
    use("tasks.size_of", {"kind": "value", "column": "size", "transform": "log", "unit": "ms", "recipe": "compact"}),
    use("tasks.own", {"kind": "mine:Kind", "columns": ["a"], "options": {"n": 1}, "recipe": "compact"}),
    use("recipes.compact.class_weight", "balanced"),
    use("recipes.compact.class_weight", {"a name, = ü": 2}),
    use("recipes.compact.class_weight", None),
    use("recipes.compact.tensorboard", {"profile": [1, 2]}),
    use("promote", {"minimum": {"model1": {"auc": 0.5}}, "contradictions": 1, "significance": None}),
    lambda tree: tree.pop("tune"),
]


@pytest.mark.parametrize("change", GOOD)
def test_what_is_right_is_taken_by_both(change):
    tree = copy.deepcopy(SHIPPED)
    change(tree)
    assert jsonschema_rs.is_valid(SCHEMA, tree), next(jsonschema_rs.iter_errors(SCHEMA, tree)).message
    validate(tree, Params)


def test_the_first_line_stays_where_values_are_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    before = Path("params.yaml").read_text(encoding="utf-8").splitlines()
    editing.set_params({"seed": 7})
    after = Path("params.yaml").read_text(encoding="utf-8").splitlines()
    assert after[0] == before[0]
    assert [line for line in after if line not in before] == [line for line in after if line.startswith("seed: 7")]
    assert params.read().seed == 7


def test_the_command_writes_it(tmp_path):
    subprocess.run([sys.executable, "-m", "mtl.config.schema"], cwd=tmp_path, check=True)
    assert (tmp_path / "params.schema.json").read_bytes() == (ROOT / "params.schema.json").read_bytes()
