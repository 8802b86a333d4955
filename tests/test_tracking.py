"""MLflow servers that are up, and away at the start (half-way: test_outages.py); what a run says of its parameters."""

from __future__ import annotations

import json
from collections.abc import Iterator

import mlflow
import pytest
from conftest import ROOT, Project
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_param_name
from outages import Tracking
from servers import free_port

from mtl import params, tracking
from mtl.errors import UserError


@pytest.fixture
def server(tmp_path) -> Iterator[Tracking]:
    folder = tmp_path / "server"
    folder.mkdir()
    running = Tracking(folder)
    try:
        running.start()
        yield running
    finally:
        running.kill()


def test_a_server_takes_the_runs_with_their_models(done: Project, server, tmp_path):
    project = done.copy(tmp_path / "p")
    project.run("dvc", "repro", "-f", "-s", "train@model2", MLFLOW_TRACKING_URI=server.uri)
    client = mlflow.MlflowClient(server.uri)
    (run,) = client.search_runs([client.get_experiment_by_name("model2").experiment_id])
    metrics = json.loads((project.root / "metrics/model2.json").read_text())
    assert run.data.metrics["test_acc"] == pytest.approx(metrics["test_acc"])
    (model,) = client.search_logged_models([run.info.experiment_id])
    assert model.name == "model"
    # The outputs are the same wherever the run was logged.
    assert project.lock() == done.lock()


def test_a_server_that_is_away_stops_the_stage_in_one_line(done: Project, tmp_path):
    project = done.copy(tmp_path / "p")
    uri = f"http://user:secret@127.0.0.1:{free_port()}"
    failed = project.run("dvc", "repro", "-f", "-s", "derive_labels", check=False, MLFLOW_TRACKING_URI=uri)
    assert failed.returncode != 0
    (line,) = [line for line in failed.stderr.splitlines() if line.startswith("error:")]
    assert f"the MLflow tracking server {uri.replace('user:secret@', '')}: no answer" in line
    assert "Traceback" not in failed.stderr
    assert "secret" not in failed.stdout + failed.stderr


def test_a_stage_that_fails_is_a_failed_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with (
        pytest.raises(UserError, match="broken"),
        tracking.stage_run("load_data", params.read(ROOT / "params.yaml")),
    ):
        raise UserError("broken")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("load_data").experiment_id])
    assert run.info.status == "FAILED"


def test_a_run_holds_the_parameters_of_its_stage():
    settings = params.read(ROOT / "params.yaml")
    load = tracking.used_params("load_data", settings)
    assert set(load) == {"seed", "data.source", "data.path", "data.size", "data.validation", "data.cache"}
    train = tracking.used_params("model2", settings)
    assert train["recipe.optimizer.learning_rate"] == settings.recipe("model2").optimizer.learning_rate
    assert train["task.labels.animal"] == settings.tasks["model2"].labels["animal"]
    assert train["hardware.threads"] == 1


ODD = (
    "cats & co (wild)",
    "🐈",
    "a:b",
    "a//b",
    "../up",
    "/",
    ".",
    "x\ny",
    " ",
    "plain-1_2",
    "größer",
    ":26:",
    "a/b",
    "..",
)


@given(st.lists(st.text() | st.sampled_from(ODD), unique=True))
def test_any_name_becomes_one_that_mlflow_takes_and_no_two_the_same(names):
    keys = [tracking.escaped(name) for name in names]
    assert len(set(keys)) == len(keys)
    for name, key in zip(names, keys, strict=True):
        assert tracking.unescaped(key) == name
        if name:
            _validate_param_name(key)


def test_names_of_files_and_parameters_stay_as_they_are():
    for name in ("out.models/model1.keras", "recipe.optimizer.learning_rate", "tasks.model2.labels.big cat"):
        assert tracking.escaped(name) == name


def test_groups_of_any_name_are_logged_and_one_refused_value_takes_no_other_with_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    settings = params.read(ROOT / "params.yaml")
    task = settings.tasks["model2"].model_copy(update={"labels": dict.fromkeys(ODD, ("cat",))})
    settings = settings.model_copy(update={"tasks": {"model2": task}})
    with tracking.stage_run("derive_labels", settings) as run:
        assert run.lost == []
        run.log_params({"fine": 1, "much too long " * 20: 2, "seed": 3})
        run.log_params({"fine": 1, "seed": 4, "last": 5})  # a parameter keeps the value that it has
        run.log_metrics({"acc": 0.5, "big & wild": 0.25})
    said = capsys.readouterr().err
    assert "much too long" in said
    assert "Traceback" not in said
    there = mlflow.MlflowClient().get_run(run.identity.run_id)
    assert there.info.status == "FINISHED"
    logged = {tracking.unescaped(key): value for key, value in there.data.params.items()}
    assert logged == {
        **{f"tasks.model2.labels.{name}": "('cat',)" for name in ODD},
        "tasks.model2.recipe": "compact",
        "fine": "1",
        "seed": "3",
        "last": "5",
    }
    assert there.data.metrics == {"acc": 0.5, "big :26: wild": 0.25}
