"""MLflow servers that are up, and away at the start (half-way: test_outages.py); what a run says of its parameters."""

from __future__ import annotations

import json
from collections.abc import Iterator

import mlflow
import pytest
from conftest import ROOT, Project
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
