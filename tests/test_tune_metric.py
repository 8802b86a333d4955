"""What a study may be judged by: the scores of a task's kind, also after each epoch, where trials are stopped early."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import ROOT
from pydantic import ValidationError
from ruamel.yaml import YAML
from test_training import fresh_model, images, recipe

from mtl.config.params import Params
from mtl.config.reading import first_line, validate
from mtl.data import store
from mtl.data.feeds import Arrays, Plan
from mtl.data.store import Dataset, Examples
from mtl.errors import UserError
from mtl.search import opening, worker
from mtl.tasks.spec import TaskSpec
from mtl.tasks.targets import Targets
from mtl.training import fitting


def settings(metric: str, goal: str = "maximize") -> Params:
    """The shipped parameters with a small recipe and another metric of the study."""
    tree = YAML(typ="safe").load(ROOT / "params.yaml")
    recipes = dict.fromkeys(("compact", "brief"), recipe(epochs=2).model_dump(mode="json"))
    return validate(tree | {"recipes": recipes, "tune": tree["tune"] | {"metric": metric, "goal": goal}}, Params)


def test_a_metric_is_one_of_the_validation_images():
    with pytest.raises(ValidationError) as error:
        settings("auc")
    assert first_line(error.value).startswith("tune.metric")
    assert "'auc'" in first_line(error.value)


def write(names: tuple[str, ...], labels: np.ndarray, known: np.ndarray) -> None:
    """data/labels of model1, with the same labels in training and validation."""
    shares = (1 / len(names),) * len(names)
    spec = TaskSpec(
        name="model1", columns=("class",), names=names, groups={name: name for name in names}, frequencies=shares
    )
    store.write_targets(spec, {"train": Targets(labels, known), "validation": Targets(labels, known)})


def examples(x: np.ndarray, y: np.ndarray) -> Examples:
    return Examples(x, Targets(y, np.ones(len(y), bool)))


@pytest.mark.usefixtures("tensorflow")
def test_a_trial_is_judged_after_each_epoch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (x, y), held_out = images(48), images(20, seed=1)
    write(("dark", "light"), y, np.ones(48, bool))
    rows: list[dict] = []
    splits = {"train": examples(x, y), "validation": examples(*held_out)}
    found = worker.fit("model1", settings("val_average_precision"), splits, tmp_path / "state", rows.append)
    assert [set(row) for row in rows] == [{"epoch", "acc", "loss", "val_acc", "val_loss", "val_average_precision"}] * 2
    assert found["val_average_precision"] == pytest.approx(rows[-1]["val_average_precision"], abs=1e-6)
    assert {"val_auc", "val_balanced_acc", "val_macro_f1", "val_skill", "val_acc", "val_loss"} <= set(found)


@pytest.mark.usefixtures("tensorflow")
def test_what_was_judged_before_a_kill_is_still_there(tmp_path):
    used, fed = recipe(epochs=3), images(32)
    calls: list[int] = []

    def judge() -> dict[str, float]:
        calls.append(len(calls))
        return {"val_own": float(len(calls))}

    def stop(row: dict) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    def train(on_epoch, **more) -> list[dict]:
        model = fresh_model(used, fed)
        return fitting.fit(model, Plan(used, 0), Arrays(*fed), Arrays(*fed), tmp_path, on_epoch, verbose=0, **more)[0]

    with pytest.raises(KeyboardInterrupt):
        train(stop, judge=judge)
    rows: list[dict] = []
    train(rows.append, judge=judge)
    assert [row["val_own"] for row in rows] == [1, 2, 3]


@pytest.mark.parametrize(
    ("names", "metric", "goal", "known", "named"),
    [
        ("abc", "val_auc", "maximize", [True] * 4, "val_auc: .*macro_f1"),
        ("ab", "val_auc", "maximize", [True, False, True, True], "val_auc: .*val_balanced_acc"),
        ("ab", "val_auc", "maximize", [False] * 4, "model1"),
        ("ab", "val_auc", "minimize", [True] * 4, "val_auc: minimize"),
        ("ab", "val_loss", "maximize", [True] * 4, "val_loss: maximize .*minimize"),
        ("ab", "val_r2", "maximize", [True] * 4, "val_r2: .*model1.*average_precision"),
    ],
)
def test_a_metric_that_a_task_cannot_be_judged_by_is_refused_before_anything_is_trained(
    tmp_path, monkeypatch, names, metric, goal, known, named
):
    monkeypatch.chdir(tmp_path)
    write(tuple(names), np.array([0, 1, 0, 0], np.uint8), np.array(known))
    dataset = Dataset("d", "folder", {}, "png", 4, 4, 0, (12, 12, 3), {"class": "text"})
    monkeypatch.setattr(store, "read_dataset", lambda: dataset)
    tree = json.loads(settings(metric, goal).model_dump_json(exclude_unset=True))
    tree["tune"]["images_per_epoch"] = None
    YAML().dump(tree, tmp_path / "params.yaml")
    with pytest.raises(UserError, match=named):
        opening.checked_settings("model1")
