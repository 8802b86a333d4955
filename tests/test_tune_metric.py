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
    small = recipe(epochs=2).model_dump(mode="json")
    return validate(
        tree | {"recipes": {"compact": small}, "tune": tree["tune"] | {"metric": metric, "goal": goal}}, Params
    )


@pytest.mark.parametrize(("metric", "goal"), [("val_auc", "minimize"), ("val_loss", "maximize"), ("auc", "maximize")])
def test_a_goal_that_makes_the_metric_worse_is_refused(metric, goal):
    with pytest.raises(ValidationError) as error:
        settings(metric, goal)
    assert first_line(error.value).startswith("tune")
    assert metric in first_line(error.value)


def write(names: tuple[str, ...], labels: np.ndarray, known: np.ndarray) -> None:
    """data/labels of model1, with the same labels in training and validation."""
    shares = (1 / len(names),) * len(names)
    spec = TaskSpec(
        name="model1", columns=("class",), names=names, groups={name: name for name in names}, frequencies=shares
    )
    store.write_targets(spec, {"train": Targets(labels, known), "validation": Targets(labels, known)})


@pytest.mark.usefixtures("tensorflow")
def test_a_trial_is_judged_after_each_epoch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (x, y), held_out = images(48), images(20, seed=1)
    write(("dark", "light"), y, np.ones(48, bool))
    rows: list[dict] = []
    splits = {"train": Examples(x, y), "validation": Examples(*held_out)}
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
    ("names", "labels", "known", "name"),
    [
        (("a", "b", "c"), [0, 1, 2, 1], [True] * 4, "val_auc"),
        (("a", "b"), [0, 1, 0, 0], [True, False, True, True], "val_auc"),
        (("a", "b"), [0, 1, 0, 0], [False] * 4, "model1"),
    ],
)
def test_a_metric_that_is_undefined_is_refused_before_anything_is_trained(
    tmp_path, monkeypatch, names, labels, known, name
):
    monkeypatch.chdir(tmp_path)
    write(names, np.array(labels, np.uint8), np.array(known))
    dataset = Dataset("d", "folder", {}, "png", 4, 4, 0, (12, 12, 3), {"class": "text"})
    monkeypatch.setattr(store, "read_dataset", lambda: dataset)
    tree = json.loads(settings("val_auc").model_dump_json(exclude_unset=True))
    tree["tune"]["images_per_epoch"] = None
    YAML().dump(tree, tmp_path / "params.yaml")
    with pytest.raises(UserError, match=name):
        opening.checked_settings("model1")
