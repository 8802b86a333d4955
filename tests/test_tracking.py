"""MLflow servers that are up, and away at the start (half-way: test_outages.py); what a run says of its parameters."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest
from conftest import ROOT, Project
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_param_name
from outages import Tracking
from servers import free_port

from mtl import tracking
from mtl.config import params
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


@pytest.mark.slow
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
    assert set(load) == {"seed", *(f"data.{key}" for key in ("source", "path", "shifted", "size", "validation"))}
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
        "tasks.model2.recipe": "brief",
        "fine": "1",
        "seed": "3",
        "last": "5",
    }
    assert there.data.metrics == {"acc": 0.5, "big :26: wild": 0.25}


LOG_AND_WAIT = """
import sys
from pathlib import Path
from mtl import tracking
from mtl.config import params

with tracking.stage_run("load_data", params.read(Path(sys.argv[1]))) as run:
    run.log_metrics({"a": 1.0})
    print(run.identity.run_id, flush=True)
    sys.stdin.read()
"""


@contextmanager
def stage_in(folder: Path, uri: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """A stage of another process, in its midst: the process and the id of its run."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "MLFLOW_TRACKING_URI": uri}
    command = [sys.executable, "-c", LOG_AND_WAIT, str(ROOT / "params.yaml")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=folder, env=environment, **pipes) as process:
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_the_run_of_a_killed_stage_is_ended_by_the_next_and_no_other(tmp_path, monkeypatch):
    """A run that goes on, or that is another folder's or store's, is none of ours to end."""
    uri, here = f"sqlite:///{tmp_path}/m.db", tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    client, settings = mlflow.MlflowClient(uri, uri), params.read(ROOT / "params.yaml")

    def statuses() -> list[str]:
        return [client.get_run(run_id).info.status for run_id in (killed, alive)]

    with stage_in(here, uri) as (alive_process, alive), stage_in(here, uri) as (process, killed):
        process.kill()
        process.wait()
        copy = shutil.copytree(here, tmp_path / "copy")
        for folder, store in ((copy, uri), (here, f"sqlite:///{tmp_path}/other.db")):
            monkeypatch.chdir(folder)
            monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
            with tracking.stage_run("load_data", settings):
                pass
        assert statuses() == ["RUNNING", "RUNNING"]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with tracking.stage_run("derive_labels", settings):
            assert statuses() == ["KILLED", "RUNNING"]
        assert client.get_run(killed).data.metrics == {"a": 1.0}
        alive_process.stdin.close()
        assert alive_process.wait(120) == 0
    assert statuses() == ["KILLED", "FINISHED"]
    assert [path.name for path in here.iterdir()] == []


def test_a_run_that_was_killed_as_it_began_or_deleted_meanwhile(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    settings = params.read(ROOT / "params.yaml")
    with tracking.stage_run("load_data", settings) as deleted:
        (note,) = tmp_path.glob(".running/*")
        noted = json.loads((note / "run.json").read_text())
    client = mlflow.MlflowClient()
    for name, changed in (("a", {}), ("b", {"run_id": None}), ("c", {"run_id": None, "start_time": 1})):
        (tmp_path / ".running" / name).mkdir(parents=True)
        identity = noted["identity"] | changed
        (tmp_path / ".running" / name / "run.json").write_text(json.dumps(noted | {"identity": identity}))
        (tmp_path / ".running" / f"{name}-half").mkdir()
    client.update_run(deleted.identity.run_id, "RUNNING")
    with tracking.stage_run("derive_labels", settings):
        pass
    assert client.get_run(deleted.identity.run_id).info.status == "KILLED"
    client.update_run(deleted.identity.run_id, "RUNNING")
    client.delete_run(deleted.identity.run_id)
    (tmp_path / ".running/a").mkdir(parents=True)
    (tmp_path / ".running/a/run.json").write_text(json.dumps(noted))
    with tracking.stage_run("derive_labels", settings):
        pass
    assert not (tmp_path / ".running").exists()
