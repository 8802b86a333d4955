"""The servers of deploy/ killed and frozen at each phase of a stage: PostgreSQL, sshd and the tracking server."""

from __future__ import annotations

import re
import signal

import mlflow
import psycopg
import pytest
from conftest import ROOT, Project
from outages import Door, save_model, stage, stored
from servers import Deployment, Server, deployed

from mtl import tracking
from mtl.config import params
from mtl.errors import UserError
from mtl.tracking import server as server_module
from mtl.tracking.outbox import pending

pytestmark = pytest.mark.slow

WHO = ("server", "database", "sftp")
PHASES = {  # the request at which it is killed
    "during training": "log-inputs",
    "at the upload of the model": "PUT .*/models/m-",
    "at the end": "runs/update",
}


@pytest.fixture(scope="module")
def deployment():
    with deployed() as running:
        yield running


@pytest.fixture(scope="module")
def opened(deployment):
    door = Door(deployment.server.port)
    yield door
    door.close()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("saved"))


@pytest.fixture
def door(deployment, opened, tmp_path, monkeypatch):
    """All servers running, behind a door, for a folder where nothing is pending."""
    for who in WHO:
        server = getattr(deployment, who)
        if server.process is None:
            server.start()
    opened.open()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", opened.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    patient(monkeypatch)
    mlflow.set_tracking_uri(opened.uri)
    return opened


def patient(monkeypatch) -> None:
    """However slow the machine: a server that is not killed or frozen is not taken for one that is."""
    monkeypatch.setattr(server_module, "SECONDS", 120)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")


@pytest.fixture(scope="module")
def whole(deployment, saved, tmp_path_factory) -> dict:
    """What an undisturbed stage leaves in the store."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", deployment.uri)
        run = stage(saved)
        assert run.lost == run.pending == []
        return stored(run, folder / "downloads")


def kill_at(door: Door, server: Server, what: str) -> None:
    """Kill a server at the first request that `what` is found in."""

    def rule(request: str) -> None:
        if re.search(what, request):
            door.open()  # once
            server.kill()

    door.rule = rule


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("who", WHO)
def test_a_server_that_is_killed(deployment: Deployment, door, saved, whole, tmp_path, who, phase):
    server = getattr(deployment, who)
    kill_at(door, server, PHASES[phase])
    run = stage(saved)
    assert server.process is None
    assert run.lost == []
    needed = (who, phase) != ("sftp", "at the end")
    assert bool(run.pending) == needed
    if needed:
        with pytest.raises(UserError, match="nothing is lost"):
            list(pending.log_all())
    server.start()
    list(pending.log_all())
    assert stored(run, tmp_path / "downloads") == whole
    assert list(pending.log_all()) == ["nothing is pending"]


@pytest.mark.parametrize("who", WHO)
def test_a_server_that_is_away_from_the_start(deployment: Deployment, door, saved, whole, tmp_path, who):
    server = getattr(deployment, who)
    server.kill()
    if who == "sftp":  # that shows when there is something for it
        run = stage(saved)
        assert run.pending[0] == "counts.json"
        server.start()
        list(pending.log_all())
        assert stored(run, tmp_path / "downloads") == whole
        return
    with pytest.raises(UserError, match=f"the MLflow tracking server {door.uri}: .*; start it, or mend or unset"):
        stage(saved)
    server.start()
    assert list(pending.log_all()) == ["nothing is pending"]


@pytest.mark.parametrize("who", WHO)
def test_a_server_that_is_killed_after_a_stage_has_all_of_it(deployment: Deployment, door, saved, whole, tmp_path, who):
    run = stage(saved)
    server = getattr(deployment, who)
    server.kill()
    server.start()
    assert stored(run, tmp_path / "downloads") == whole


@pytest.mark.parametrize("who", WHO)
def test_a_server_that_freezes(deployment: Deployment, door, saved, whole, tmp_path, monkeypatch, who):
    """Stopped, so that its connections stay open and nothing comes: the client's own timeouts end the waiting."""
    server, stopped = getattr(deployment, who), []

    def rule(request: str) -> None:
        if "PUT" in request:
            door.open()  # once
            monkeypatch.setattr(server_module, "SECONDS", 2)
            monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
            stopped.extend(processes(server))
            for process in stopped:
                process.send_signal(signal.SIGSTOP)

    door.rule = rule
    run = stage(saved)
    for process in stopped:
        process.send_signal(signal.SIGCONT)
    assert run.pending
    patient(monkeypatch)
    list(pending.log_all())
    assert stored(run, tmp_path / "downloads") == whole


def test_a_database_that_can_only_be_read(postgresql, tmp_path, monkeypatch):
    """As after a failover. MLflow says BAD_REQUEST to what is written, with or without a tracking server before it."""
    uri = postgresql.replace("postgresql:", "postgresql+psycopg:")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)

    def only_read(value: str) -> None:
        with psycopg.connect(postgresql, autocommit=True) as database:
            database.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
            database.execute("SELECT pg_reload_conf()")
        while True:  # until the server has read it
            with psycopg.connect(postgresql) as database:
                if database.execute("SHOW default_transaction_read_only").fetchone() == (value,):
                    return

    try:
        with tracking.stage_run("load_data", params.read(ROOT / "params.yaml")) as run:
            only_read("on")
            run.log_metrics({"a": 1.0})
        assert run.lost == []
        assert run.pending == ["metrics", "end of the run"]
        with pytest.raises(UserError, match=r"refuses metrics, .*ReadOnlySqlTransaction.*; it stays written down"):
            list(pending.log_all())
        only_read("off")
        list(pending.log_all())
        there = mlflow.MlflowClient(uri).get_run(run.identity.run_id)
        assert (there.info.status, there.data.metrics) == ("FINISHED", {"a": 1.0})
        assert list(pending.log_all()) == ["nothing is pending"]
    finally:
        only_read("off")
        mlflow.set_tracking_uri(None)


def processes(server: Server) -> list:
    import psutil

    first = psutil.Process(server.process.pid)
    return [first, *first.children(recursive=True)]


def test_a_training_outlives_its_servers(deployment: Deployment, door, done: Project, tmp_path):
    """`dvc repro` of a training whose tracking server dies at the upload, promoted after `mtl log --pending`."""
    project = done.copy(tmp_path / "p")
    project.environment = done.environment | {
        "PYTHONPATH": str(project.root / "src"),
        "MLFLOW_TRACKING_URI": door.uri,
    }
    project.edit(lambda tree: tree["promote"].update(accuracy={"model1": 0.0}, contradictions=1.0, significance=1e-9))
    project.run("git", "commit", "-qam", "gate")
    kill_at(door, deployment.server, "PUT .*/models/m-")
    said = project.run("dvc", "repro", "-f", "-s", "train@model1").stderr
    assert "MLflow: not logged: model, tags, end of the run; `mtl log --pending` logs it" in said
    assert project.lock() == done.lock()
    for stage_name in ("train@model2", "main_evaluate"):
        away = project.run("dvc", "repro", "-f", "-s", stage_name, check=False)
        assert away.returncode != 0
        assert "no answer" in away.stderr
        project.run("dvc", "checkout", "-q")
        project.run("git", "checkout", "-q", "dvc.lock", "metrics")
    deployment.server.start()
    for stage_name in ("train@model2", "main_evaluate"):
        project.run("dvc", "repro", "-f", "-s", stage_name)
    refused = project.run("mtl", "promote", check=False)
    assert "error: no run in MLflow has the models/model1.keras of this dvc.lock; 1 run is not logged" in refused.stderr
    assert "`mtl log --pending` first" in refused.stderr
    assert "1 run is not logged as a whole" in project.run("mtl", "runs").stderr
    assert "model1: run" in project.run("mtl", "log", "--pending").stdout
    assert "joint version 1 is @champion now" in project.run("mtl", "promote").stdout
    rows = project.run("mtl", "runs")
    assert rows.stderr == ""
    assert "model1/1" in rows.stdout
    assert tracking.pending.journals() == []
