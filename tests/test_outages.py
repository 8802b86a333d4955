"""An MLflow server that goes away at a chosen request: nothing lost, nothing twice, in the end as if it had stayed."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import mlflow
import pytest
from conftest import ROOT
from matplotlib.figure import Figure
from outages import Door, content
from test_tracking import Server

from mtl import params, tracking
from mtl.errors import UserError
from mtl.store import Dataset
from mtl.tracking import pending

DATASET = Dataset("small", "folder", False, ("a", "b"), "png", 4, 0, 2, (2, 2, 3))
MODEL = """
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class Echo(PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input


set_model(Echo())
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("server"))
    yield running
    running.kill()


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A model in MLflow's format, quickly made."""
    folder = tmp_path_factory.mktemp("saved")
    (folder / "echo.py").write_text(MODEL)
    mlflow.pyfunc.save_model(folder / "model", python_model=folder / "echo.py", pip_requirements=["mlflow"])
    return folder / "model"


@pytest.fixture
def door(server, tmp_path, monkeypatch):
    """The server behind a door, in a folder where nothing is pending."""
    opened = Door(server.port)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", opened.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    yield opened
    opened.close()


def stage(saved: Path) -> tuple[tracking.Run, str]:
    """A stage that logs one thing of each kind; its run and the run's id."""
    with tracking.stage_run("load_data", params.read(ROOT / "params.yaml")) as run:
        run.log_dataset(DATASET)
        for epoch in (1, 2):
            run.log_epoch({"epoch": epoch, "loss": 1 / epoch, "val_loss": 2 / epoch})
        run.log_metrics({"test_acc": 0.5, "test_loss": 0.25})
        run.log_json({"a": 2, "b": 2}, "counts.json")
        run.log_figures({"gallery/one": Figure((1, 1))})
        run.log_saved("model", "model", lambda files: shutil.copytree(saved, files, dirs_exist_ok=True))
    return run, run.identity.run_id


def stored(run_id: str, folder: Path) -> dict:
    return content(mlflow.MlflowClient(), run_id, folder)


@pytest.fixture
def whole(door, saved, tmp_path) -> dict:
    """What an undisturbed stage leaves in the store."""
    run, run_id = stage(saved)
    assert run.lost == run.pending == []
    assert not (tmp_path / ".pending").exists()
    (tmp_path / "downloads").mkdir()
    print("\n".join(door.seen))
    there = stored(run_id, tmp_path / "downloads")
    assert [len(there[key]) for key in ("models", "artifacts", "inputs")] == [1, 2, 1]
    assert there["metrics"]["train_loss"] == [(1, 1.0), (2, 0.5)]
    return there


def log_pending() -> list[str]:
    return list(pending.log_all())


def folders(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / ".pending").iterdir() if path.is_dir()]


PHASES = {
    "during training": ("log-batch", "shut"),
    "at the figures": ("PUT", "shut"),
    "as the model is made, its answer lost": ("POST .*/logged-models$", "lost"),
    "at the upload of the model": ("PUT .*/models/m-", "lost"),
    "at the end": ("runs/update", "lost"),
}


@pytest.mark.parametrize("phase", PHASES)
def test_what_an_outage_left_is_logged_once(door, saved, whole, tmp_path, capsys, phase):
    door.at_first(*PHASES[phase])
    run, run_id = stage(saved)
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("MLflow: not logged: ")
    assert said[-1].endswith("end of the run; `mtl log --pending` logs it when the server is back")
    assert run.lost == []
    with pytest.raises(UserError, match=r"no answer; .*nothing is lost"):
        log_pending()
    door.open()
    (line,) = log_pending()
    assert line.startswith(f"load_data: run {run_id[:8]} (")
    assert line.endswith("end of the run): logged")
    assert stored(run_id, tmp_path / "downloads") == whole
    assert folders(tmp_path) == []
    assert log_pending() == ["nothing is pending"]
    assert stored(run_id, tmp_path / "downloads") == whole
