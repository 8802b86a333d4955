"""A real MLflow 2.x server, as DagsHub may have it: params and metrics are logged, and what it refuses is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from conftest import Project
from servers import Server, free_port, own_folder

pytestmark = pytest.mark.slow

RELEASE = ("mlflow==2.22.5", "sqlalchemy<2.1")  # later ones do not import with it
KNOWS_NOT = "an MLflow before 3, which logs no models and has none to promote"


class MLflow2(Server):
    """`mlflow server` of another environment, on SQLite and a folder."""

    def __init__(self, folder: Path, python: Path) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        command = [str(python), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/m.db"]
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "PYTHON"))}
        environment["PATH"] = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
        super().__init__([*command, "--artifacts-destination", str(folder / "a")], folder, environment, None)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[MLflow2]:
    """Installed by pip into an environment of its own. MTL_TEST_MLFLOW2 names one that is there already."""
    there = os.environ.get("MTL_TEST_MLFLOW2")
    environment = Path(there) if there else tmp_path_factory.mktemp("mlflow2") / "environment"
    python = environment / "bin" / "python"
    if not there:
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        pip = subprocess.run([python, "-m", "pip", "install", "--quiet", *RELEASE], capture_output=True, text=True)
        if pip.returncode:
            pytest.skip(f"{RELEASE[0]} cannot be installed here: {pip.stderr.strip().splitlines()[-1]}")
    with own_folder() as folder:
        running = MLflow2(folder, python)
        try:
            running.start()
            yield running
        finally:
            running.kill()


@pytest.fixture(scope="module")
def logged(server: MLflow2, fresh: Project, tmp_path_factory) -> tuple[Project, str]:
    """A clone whose DAG was run with the address of that server, and what it said on stderr."""
    project = fresh.copy(tmp_path_factory.mktemp("logged") / "p")
    project.environment = fresh.environment | {
        "PYTHONPATH": str(project.root / "src"),
        "MLFLOW_TRACKING_URI": server.uri,
    }
    said = project.run("dvc", "repro").stderr
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "done")
    return project, said


def test_params_metrics_and_files_are_logged(server, logged):
    project, _ = logged
    assert mlflow_version(server) == RELEASE[0].partition("==")[2]
    client = mlflow.MlflowClient(server.uri)
    for name in ("load_data", "derive_labels", "model1", "model2", "main_evaluate"):
        (run,) = client.search_runs([client.get_experiment_by_name(name).experiment_id])
        assert run.info.status == "FINISHED"
        assert run.data.params
        assert run.data.tags["git_commit"]
        assert any(tag.startswith("out.") for tag in run.data.tags)
        if name.startswith("model"):
            metrics = json.loads((project.root / f"metrics/{name}.json").read_text())
            assert run.data.metrics["test_acc"] == pytest.approx(metrics["test_acc"])
            assert len(client.get_metric_history(run.info.run_id, "val_acc")) == 2
            assert f"{name}_history.csv" in {file.path for file in client.list_artifacts(run.info.run_id)}


def mlflow_version(server: MLflow2) -> str:
    with urllib.request.urlopen(f"{server.uri}/version") as answer:
        return answer.read().decode()


def test_what_it_refuses_is_a_line_each_and_not_left_pending(logged):
    project, said = logged
    lines = [line for line in said.splitlines() if line.startswith("MLflow: cannot log")]
    assert len(lines) == 3, said
    for line, what in zip(lines, ("model", "model", "joint model"), strict=True):
        assert line.startswith(f"MLflow: cannot log {what}: it does not know /api/2.0/mlflow/logged-models")
        assert KNOWS_NOT in line
    assert said.count("MLflow: not logged: model\n") == 2
    assert "Traceback" not in said
    assert project.run("mtl", "log", "--pending").stdout == "nothing is pending\n"


def test_its_runs_are_found_and_a_promotion_is_refused_in_one_line(server, logged):
    project, _ = logged
    assert "models/model1.keras" in project.run("mtl", "runs").stdout
    for command in (("mtl", "promote"), ("mtl", "uri", "joint")):
        failed = project.run(*command, check=False)
        assert failed.returncode == 1
        (line,) = failed.stderr.strip().splitlines()
        assert line.startswith("error: ")
    refused = project.run("mtl", "promote", check=False).stderr
    assert f"the MLflow tracking server {server.uri}: it does not know /api/" in refused
    assert KNOWS_NOT in refused
