"""What `tune:` in params.yaml may declare, the lines it gives for what it may not, and the ranges of a next study."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from mtl.config import editing, params
from mtl.config.tune import Discrete, Double, Integer
from mtl.errors import UserError
from mtl.search import drawing, ranges, report, space

RATE = {"name": "optimizer.learning_rate", "type": "double", "min": 0.05, "max": 0.8, "scale": "log"}


def declare(**changes) -> None:
    """Change keys of `tune:` in the working directory's params.yaml."""
    editing.set_params({f"tune.{key}": value for key, value in changes.items()})


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


BAD = [
    (
        {"parameters": [RATE | {"name": "optimizer.lerning_rate"}]},
        "optimizer.lerning_rate: unknown path; known in recipes.compact.optimizer: name, learning_rate",
    ),
    ({"parameters": [RATE | {"name": "options.depth.x"}]}, "options.depth.x: unknown path"),
    (
        {"parameters": [RATE | {"min": 0.8}]},
        "tune.parameters.0: optimizer.learning_rate: the range is empty: min 0.8 is not below max 0.8",
    ),
    (
        {"parameters": [RATE | {"min": 0.0}]},
        "optimizer.learning_rate: no log scale from min 0; use a min above 0, or scale: linear",
    ),
    ({"parameters": [RATE | {"min": "low"}]}, "tune.parameters.0.min: must be a number"),
    ({"parameters": [RATE, RATE]}, "optimizer.learning_rate is declared twice"),
    (
        {"parameters": [RATE, RATE | {"name": "recipes.compact.optimizer.learning_rate"}]},
        "declared twice, once by its full path",
    ),
    (
        {"parameters": [RATE | {"name": "recipes.article_binary.optimizer.learning_rate"}]},
        "recipe 'article_binary' is not of this study: compact",
    ),
    (
        {"parameters": [RATE | {"name": "batch_size"}]},
        "batch_size: no value is accepted: recipes.compact.batch_size: must be a whole number",
    ),
    (
        {"parameters": [{"name": "keep", "type": "categorical", "values": ["last"]}]},
        "tune.parameters.0.values: 1 entries; give at least 2",
    ),
    (
        {"parameters": [{"name": "epochs", "type": "discrete", "values": [4, 2]}]},
        "discrete values are given in rising order, not [4, 2]",
    ),
    (
        {"parameters": [{"name": "keep", "type": "categorical", "values": ["last", "last"]}]},
        "keep: a value is listed twice",
    ),
    (
        {"parameters": [{"name": "keep", "type": "text", "values": ["last", "best"]}]},
        "tune.parameters.0: unknown type 'text'",
    ),
    ({"parameters": []}, "tune.parameters: 0 entries; give at least 1"),
    ({"algorithm": "grid", "parameters": [RATE]}, "a grid has no points in a double range"),
    (
        {"algorithm": "grid", "parameters": [{"name": "epochs", "type": "integer", "min": 1, "max": 1_001}]},
        "tune: a grid of 1001 points; give fewer values (1000)",
    ),
    (
        {"metric": "val_loss", "goal": "minimize"},
        "label_smoothing and loss change the val_loss that early stopping compares",
    ),
    ({"max_trials": 0}, "tune.max_trials: must be at least 1, not 0"),
    (
        {"early_stopping": "hyperband"},
        "tune.early_stopping: must be 'none', 'median' or 'asha', not 'hyperband'",
    ),
]


@pytest.mark.parametrize(("changes", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_a_study_that_makes_no_sense_is_one_line(here, changes, message):
    declare(**changes)
    with pytest.raises(UserError) as refused:
        space.read(params.read(), ["model1"])
    assert message in str(refused.value)
    assert str(refused.value).startswith("params.yaml: ")
    assert "\n" not in str(refused.value)


def test_without_the_section_there_is_nothing_to_search(here):
    yaml = YAML()
    tree = yaml.load(Path("params.yaml"))
    del tree["tune"]
    yaml.dump(tree, Path("params.yaml"))
    with pytest.raises(UserError, match=r"params\.yaml: there is no section tune"):
        space.read(params.read(), ["model1"])


def test_tasks_with_several_recipes_need_full_paths(here):
    editing.set_param("tasks.model2.recipe", "article_binary")
    declare(parameters=[RATE])
    with pytest.raises(UserError, match=r"write recipes.compact.optimizer.learning_rate"):
        space.read(params.read(), ["model1", "model2"])
    full = [RATE | {"name": f"recipes.{recipe}.optimizer.learning_rate"} for recipe in ("compact", "article_binary")]
    declare(parameters=full)
    searched = space.read(params.read(), ["model1", "model2"])
    changed = searched.changed({full[1]["name"]: 0.125})
    assert changed.recipe("model2").optimizer.learning_rate == 0.125
    assert changed.recipe("model1").optimizer == params.read().recipe("model1").optimizer
    assert {changed.recipe(task).epochs for task in ("model1", "model2")} == {params.read().tune.epochs}


@pytest.mark.parametrize(("batch_size", "steps"), [(256, 39), (512, 20), (1024, 10), (100_000, 1)])
def test_a_shorter_epoch_takes_as_many_images_whatever_the_batch(here, batch_size, steps):
    declare(images_per_epoch=10_000, parameters=[{"name": "batch_size", "type": "integer", "min": 1, "max": 100_000}])
    searched = space.read(params.read(), ["model1"])
    values = {"recipes.compact.batch_size": batch_size}
    assert searched.changed(values).recipe("model1").steps_per_epoch == steps
    assert shlex.split(report.command(searched, values))[-3:] == [
        f"++recipes.compact.steps_per_epoch={steps}",
        *("-S", f"recipes.compact.batch_size={batch_size}"),
    ]


def test_a_batch_that_the_recipe_refuses_is_no_fault_of_the_shorter_epoch(here):
    declare(images_per_epoch=10_000, parameters=[{"name": "batch_size", "type": "integer", "min": 0, "max": 64}])
    searched = space.read(params.read(), ["model1"])
    for value in (0, "many", None):
        with pytest.raises(UserError, match=r"recipes\.compact\.batch_size"):
            searched.changed({"recipes.compact.batch_size": value})


def test_a_shorter_epoch_is_of_whole_executions(here):
    editing.set_params({"recipes.compact.steps_per_execution": 8, "tune.images_per_epoch": 10_000})
    assert space.read(params.read(), ["model1"]).changed({}).recipe("model1").steps_per_epoch == 16


def test_any_value_of_a_recipe_can_be_searched(here):
    """Also within a list, a list as a whole, and one that the file leaves to its default."""
    editing.set_params({"tasks.model1.recipe": "article_multiclass"})
    widths = {"name": "options.dense", "type": "categorical", "values": [[64], [64, 32]]}
    first = {"name": "recipes.article_multiclass.label_smoothing", "type": "discrete", "values": [0, 0.1]}
    declare(parameters=[widths, first])
    searched = space.read(params.read(), ["model1"])
    assert searched.changed({"recipes.article_multiclass.options.dense": [64, 32]}).recipe("model1").options[
        "dense"
    ] == [64, 32]
    editing.set_param("recipes.article_multiclass.label_smoothing", 0.1)
    assert params.read().recipe("model1").label_smoothing == 0.1
    declare(parameters=[{"name": "options.dense.1", "type": "integer", "min": 16, "max": 64}])
    searched = space.read(params.read(), ["model1"])
    dense = searched.changed({"recipes.article_multiclass.options.dense.1": 20}).recipe("model1").options["dense"]
    assert dense == [3512, 20, 512, 256, 128]


def test_what_a_recipe_refuses_names_the_value(here):
    declare(parameters=[{"name": "label_smoothing", "type": "discrete", "values": [0.1, 1.5]}])
    searched = space.read(params.read(), ["model1"])
    with pytest.raises(UserError, match=r"recipes.compact.label_smoothing: must be below 1, not 1.5"):
        searched.changed({"recipes.compact.label_smoothing": 1.5})


@pytest.mark.parametrize(
    "value",
    [0.1, 1e-05, 3, True, False, None, "last", "my.module:net", "null", "it's, [odd] \\ text", [32, 64], ["a b"]],
)
def test_the_command_gives_dvc_the_very_value(here, value):
    """Hydra reads what `dvc exp run -S` is given."""
    from dvc.utils.hydra import apply_overrides

    path = "recipes.compact.options.x"
    editing.set_param(path, 0)
    (here / "params.yaml").with_name("p.yaml").write_text(Path("params.yaml").read_text())
    apply_overrides("p.yaml", [f"{path}={report.override(value)}"])
    assert YAML(typ="safe", pure=True).load(Path("p.yaml"))["recipes"]["compact"]["options"]["x"] == value


def test_a_list_is_stored_as_text_and_comes_back(here):
    widths = [[8], [8, 16], "wide", None]
    parameter = {"name": "options.widths", "type": "categorical", "values": widths}
    declare(parameters=[parameter])
    (declared,) = space.read(params.read(), ["model1"]).parameters.values()
    assert [drawing.decode(declared, drawing.encode(value)) for value in declared.values] == widths


def test_the_edge_of_a_range():
    rate = Double(name="x", type="double", min=0.001, max=10, scale="log")
    assert [ranges.edge(rate, value) for value in (0.0011, 0.1, 9.9)] == ["min", None, "max"]
    count = Integer(name="x", type="integer", min=0, max=4)
    assert [ranges.edge(count, value) for value in (0, 1, 4)] == ["min", None, "max"]
    steps = Discrete(name="x", type="discrete", values=(0, 0.1, 0.2))
    assert [ranges.edge(steps, value) for value in (0, 0.1, 0.2)] == ["min", None, "max"]


@given(st.data())
def test_a_next_range_holds_the_best_value_and_what_the_recipe_accepts(data):
    scale = data.draw(st.sampled_from(["linear", "log"]))
    low = data.draw(st.floats(1e-4, 10))
    high = data.draw(st.floats(low * 1.5, low * 1e4))
    parameter = Double(name="x", type="double", min=low, max=high, scale=scale)
    good = data.draw(st.lists(st.floats(low, high), min_size=1, max_size=6))
    limit = data.draw(st.floats(high, high * 2))
    new = ranges.next_range(parameter, good[0], good, lambda value: 0 < value <= limit)
    assert new[0] < new[1]
    assert new[0] <= good[0] <= new[1]
    assert new[0] > 0
    assert new[1] <= limit
    if ranges.edge(parameter, good[0]) is None:
        assert low <= new[0]
        assert new[1] <= high


def test_a_range_is_narrowed_to_the_good_values_and_widened_where_the_best_lies_at_its_edge():
    momentum = Double(name="x", type="double", min=0.0, max=1.0)
    assert ranges.next_range(momentum, 0.5, [0.5, 0.4, 0.6], lambda _: True) == (0.3, 0.7)
    assert ranges.next_range(momentum, 0.99, [0.99, 0.8], lambda _: True) == (0.7, 1.5)
    assert ranges.next_range(momentum, 0.99, [0.99, 0.8], lambda value: value < 1) == (0.7, 1.0)
    rate = Double(name="x", type="double", min=0.01, max=1.0, scale="log")
    assert ranges.next_range(rate, 1.0, [1.0], lambda _: True) == (0.631, 10.0)
    pixels = Integer(name="x", type="integer", min=0, max=4)
    assert ranges.next_range(pixels, 0, [0, 1], lambda value: value >= 0) == (0, 1)


def test_the_command_quotes_for_the_shell(here):
    declare(parameters=[RATE, {"name": "options.widths", "type": "categorical", "values": [[8, 8], [16]]}])
    searched = space.read(params.read(), ["model1"])
    line = report.command(searched, {"recipes.compact.options.widths": [8, 8]})
    assert shlex.split(line) == [
        *("dvc", "exp", "run", "train@model1"),
        *("-S", f"recipes.compact.epochs={params.read().tune.epochs}"),
        *("-S", "recipes.compact.options.widths=[8,8]"),
    ]


def test_the_command_adds_what_the_file_leaves_to_its_default(here):
    editing.set_param("tasks.model1.recipe", "article_binary")
    name = "recipes.article_binary.augmentation.translate"
    declare(parameters=[{"name": name, "type": "integer", "min": 0, "max": 4}])
    line = report.command(space.read(params.read(), ["model1"]), {name: 2})
    assert shlex.split(line)[-1] == f"++{name}=2"
    editing.set_param(name, 2)
    assert params.read().recipe("model1").augmentation.translate == 2
