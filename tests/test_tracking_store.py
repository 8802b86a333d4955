"""The store itself: made by one process at a time, where the project is now, and what may be wrong with it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import mlflow
import psycopg
import pytest
from conftest import ROOT
from outages import save_model, stage

from mtl import tracking
from mtl.config import params
from mtl.errors import UserError
from mtl.tracking import artifacts, registry

WAIT_THEN_LOG = """
import sys
from pathlib import Path
import mlflow, dvc.repo, alembic.command
from mtl import tracking
from mtl.config import params

settings = params.read(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
with tracking.stage_run("load_data", settings) as run:
    run.log_metrics({"a": 1.0})
"""


def enter(folder: Path, monkeypatch, uri: str | None = None) -> Path:
    """Work in a folder as a new process does, with its own store or the one at `uri`."""
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    mlflow.set_tracking_uri(None)
    if uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    else:
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


def log(metric: float = 1.0) -> tracking.Run:
    with tracking.stage_run("load_data", params.read(ROOT / "params.yaml")) as run:
        run.log_metrics({"a": metric})
        run.log_json({}, "a.json")
    assert run.lost == run.pending == []
    return run


def files(folder: Path) -> dict[str, str]:
    """Path -> md5 of all that is in a folder."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.md5(path.read_bytes()).hexdigest() for path in found}


def places(database: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(database)) as store:
        lines = "\n".join(store.iterdump()).splitlines()
    return [line for line in lines if "mlartifacts" in line or "mlruns" in line]


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("saved"))


def test_two_copies_used_in_turn_never_write_into_each_other(tmp_path, monkeypatch, capsys):
    one, two = tmp_path / "the first", tmp_path / "two"
    enter(one, monkeypatch)
    log()
    shutil.copytree(one, two)
    for here, other in ((two, one), (one, two), (two, one)):
        enter(here, monkeypatch)
        capsys.readouterr()
        before = files(other)
        run = log()
        assert files(other) == before
        assert (here / f"mlartifacts/load_data/{run.identity.run_id}/artifacts/a.json").exists()
        assert not [line for line in places(here / "mlflow.db") if f"/{other.name}/" in line.replace("%20", " ")]
    assert capsys.readouterr().err == ""


def test_a_moved_project_has_its_models_and_says_so_once(saved, tmp_path, monkeypatch, capsys):
    old = enter(tmp_path / "old", monkeypatch)
    run = stage(saved)
    (model,) = mlflow.search_logged_models(
        [mlflow.get_run(run.identity.run_id).info.experiment_id], output_format="list"
    )
    registry.register("joint", model, {"models/a": "1"}, {})
    new = enter(tmp_path / "new", monkeypatch)
    new.rmdir()
    old.rename(new)
    monkeypatch.chdir(new)
    capsys.readouterr()
    for uri in ("models:/joint/1", f"models:/{model.model_id}"):
        assert (artifacts.download_model(uri, tmp_path / uri[-1]) / "MLmodel").exists()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "MLflow" in line]
    assert str(old) in line
    assert str(new) in line
    assert not old.exists()
    tracking.prepare_client()
    assert mlflow.pyfunc.load_model("models:/joint/1").predict(["a"]) == ["a"]
    assert artifacts.download_artifact(run.identity.run_id, "counts.json", tmp_path / "got").exists()


def test_a_store_elsewhere_and_one_by_another_name_keep_their_places(tmp_path, monkeypatch):
    uri = f"sqlite:///{tmp_path}/shared.db"
    enter(tmp_path / "one", monkeypatch, uri)
    log()
    before = places(tmp_path / "shared.db")
    enter(tmp_path / "two", monkeypatch, uri)
    registry.versions("joint")
    assert places(tmp_path / "shared.db") == before
    here = enter(tmp_path / "here", monkeypatch)
    log()
    before = places(here / "mlflow.db")
    (tmp_path / "link").symlink_to(here)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "link"))
    mlflow.set_tracking_uri(None)
    registry.versions("joint")
    assert places(here / "mlflow.db") == before


def processes(folders: list[Path], uri: str | None) -> list[str]:
    """Use a store for the first time in several processes at once; the stderr of each."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment |= {"PYTHONPATH": str(ROOT / "src")} | ({"MLFLOW_TRACKING_URI": uri} if uri else {})
    command = [sys.executable, "-c", WAIT_THEN_LOG, str(ROOT / "params.yaml")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(command, cwd=folder, env=environment, **pipes) for folder in folders]
    for process in running:
        assert process.stdout.readline() == "ready\n"
    for process in running:
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate(timeout=300)[1] for process in running]
    assert [process.returncode for process in running] == [0] * len(running), "\n".join(said)
    return said


def runs(uri: str) -> int:
    client = mlflow.MlflowClient(uri, uri)
    return len(client.search_runs([client.get_experiment_by_name("load_data").experiment_id]))


@pytest.mark.slow
@pytest.mark.parametrize("where", ["the stages of a new clone", "two clones and one new store"])
def test_a_new_store_is_made_once(tmp_path, where):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    shared = f"sqlite:///{tmp_path}/not yet/m.db"
    uri, folders = (shared, folders) if "two clones" in where else (None, folders[:1] * 2)
    said = processes(folders, uri)
    assert not any("Traceback" in text or "alembic" in text for text in said)
    assert runs(uri or f"sqlite:///{tmp_path}/a/mlflow.db") == 2


@pytest.mark.slow
def test_a_new_database_of_a_server_is_filled_once(postgresql, tmp_path):
    with psycopg.connect(postgresql, autocommit=True) as database:
        database.execute("CREATE DATABASE fresh")
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    uri = postgresql.replace("postgresql:", "postgresql+psycopg:").rpartition("/")[0] + "/fresh"
    said = processes(folders, uri)
    assert not any("Traceback" in text or "alembic" in text for text in said)
    assert runs(uri) == 2


def test_what_a_kill_left_of_a_new_store_is_made_anew(tmp_path, monkeypatch):
    """Killed while it makes its tables, MLflow leaves a file that it cannot complete."""
    enter(tmp_path, monkeypatch)
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db.tmp")) as half:
        half.execute("CREATE TABLE experiments (a INTEGER)")
    (tmp_path / "mlflow.db").touch()
    log()
    assert sorted(path.name for path in tmp_path.iterdir() if "mlflow.db" in path.name) == ["mlflow.db"]


def refusal() -> str:
    with pytest.raises(UserError) as told, tracking.stage_run("load_data", params.read(ROOT / "params.yaml")):
        raise AssertionError("the stage must not begin")
    assert "\n" not in str(told.value)
    assert "tracking server" not in str(told.value)
    assert "start it" not in str(told.value)
    return str(told.value)


def test_a_deleted_experiment_comes_back_by_the_command_that_is_named(tmp_path, monkeypatch):
    enter(tmp_path, monkeypatch)
    log()
    client = mlflow.MlflowClient()
    number = client.get_experiment_by_name("load_data").experiment_id
    client.delete_experiment(number)
    command = f"mlflow experiments restore --experiment-id {number}"
    assert f"`{command}`" in refusal()
    with pytest.raises(UserError, match=command):
        artifacts.logged_model("load_data", "model", {})
    restored = [sys.executable, "-m", *command.split()]
    environment = os.environ | {"MLFLOW_TRACKING_URI": tracking.uri()}
    subprocess.run(restored, check=True, capture_output=True, env=environment)
    log()


@pytest.mark.parametrize(
    ("break_it", "named"),
    [
        (lambda file: file.write_text("text " * 999), "damaged"),
        (lambda file: file.unlink() or file.mkdir(), "cannot be opened"),
        (lambda file: execute(file, "UPDATE alembic_version SET version_num = 'cf00cf00cf00'"), "mlflow db upgrade"),
    ],
)
def test_each_fault_of_a_local_store_has_advice_of_its_own(tmp_path, monkeypatch, break_it, named):
    enter(tmp_path, monkeypatch, f"sqlite:///{tmp_path}/m.db")
    with tracking.stage_run("load_data", params.read(ROOT / "params.yaml")):
        pass
    break_it(tmp_path / "m.db")
    # This process is connected already: by another name it opens the store anew.
    (tmp_path / "again.db").symlink_to(tmp_path / "m.db")
    enter(tmp_path, monkeypatch, f"sqlite:///{tmp_path}/again.db")
    assert named in refusal()


def execute(file: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute(statement)


@pytest.mark.parametrize("uri", ["ftp://127.0.0.1/x", "postgresql+nothing://127.0.0.1/x", "sqlite:////proc/none/m.db"])
def test_an_address_that_is_none_is_to_be_mended_not_started(tmp_path, monkeypatch, uri):
    enter(tmp_path, monkeypatch, uri)
    assert "MLFLOW_TRACKING_URI" in refusal()


def test_dvc_repro_is_advised_in_a_project_alone(tmp_path, monkeypatch):
    enter(tmp_path, monkeypatch)
    for ask in (tracking.client, registry.connection):
        with pytest.raises(UserError) as told, ask():
            pass
        assert "dvc repro" not in str(told.value)
        assert "root" in str(told.value)
    (tmp_path / "dvc.yaml").touch()
    with pytest.raises(UserError, match="dvc repro"), registry.connection():
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["dvc.yaml"]
