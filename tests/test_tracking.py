"""MLflow servers that are up, away at the start, and gone half-way; and what a run says of its parameters."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import mlflow
import pytest
from conftest import ROOT, Project
from servers import free_port

from mtl import params, tracking
from mtl.errors import UserError


class Server:
    """A real `mlflow server` on loopback."""

    def __init__(self, folder) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{folder}/m.db", "--artifacts-destination", str(folder / "a")]
        # Its workers for evaluation jobs would leave the process group, and outlive the test.
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self.log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            [*command, "--workers", "1"], env=environment, stdout=self.log, stderr=self.log, start_new_session=True
        )
        deadline = time.monotonic() + 120
        while not self.answers():
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def kill(self) -> None:
        """End the server and its workers at once, as when the machine goes down."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    running = Server(folder)
    yield running
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


def test_a_server_that_goes_away_costs_no_output(tmp_path, monkeypatch, capsys, server):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri.replace("//", "//user:secret@"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with tracking.stage_run("load_data", params.read(ROOT / "params.yaml")) as run:
        run.log_metrics({"a": 1.0})
        server.kill()
        run.log_metrics({"b": 1.0})
        run.log_json({}, "late.json")
    everything = capsys.readouterr()
    assert "secret" not in everything.out + everything.err
    said = everything.err.splitlines()
    assert said[0].startswith("MLflow: cannot log metrics: ")
    assert mlflow.active_run() is None
    assert said[-1] == "MLflow: not logged: metrics, late.json, tags, end of the run"


def test_one_thing_that_cannot_be_logged_costs_that_thing_alone(tmp_path, monkeypatch, capsys):
    """An older server knows no logged models: their 404 must not silence the metrics."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def refused():
        raise mlflow.MlflowException("404: no such endpoint")

    with tracking.stage_run("load_data", params.read(ROOT / "params.yaml")) as run:
        run.send("model", refused)
        run.log_metrics({"a": 1.0})
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (logged,) = client.search_runs([client.get_experiment_by_name("load_data").experiment_id])
    assert logged.data.metrics == {"a": 1.0}
    assert capsys.readouterr().err.splitlines()[-1] == "MLflow: not logged: model"


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
    assert set(load) == {"seed", "data.source", "data.path", "data.size", "data.validation"}
    train = tracking.used_params("model2", settings)
    assert train["recipe.optimizer.learning_rate"] == settings.recipe("model2").optimizer.learning_rate
    assert train["task.labels.animal"] == settings.tasks["model2"].labels["animal"]
    assert train["hardware.threads"] == 1


def test_a_server_that_goes_away_costs_a_study_no_trial(tmp_path, monkeypatch, server):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with tracking.study_run("model1", "an id", {"seed": 0}) as (study, parent):
        pass
    with tracking.study_run("model1", "an id", {"seed": 0}) as (_, again):
        assert again == parent
    with tracking.study_run("model1", "another id", {"seed": 0}) as (_, other):
        assert other != parent
    first, known = tracking.trial_run(parent, "trial 0", {"trial": "0"})
    first.end("FINISHED")
    assert mlflow.get_run(known).data.tags["mlflow.parentRunId"] == parent
    assert first.lost == []
    server.kill()
    run, unknown = tracking.trial_run(parent, "trial 1", {"trial": "1"})
    run.log_epoch({"epoch": 1, "loss": 1.0})
    run.end("FINISHED")
    study.end_other(known, "it was killed")
    assert unknown is None
    assert run.lost == ["run", "metrics"]
    assert study.lost == ["end of a killed run"]
    assert mlflow.active_run() is None
