"""The servers of deploy/: PostgreSQL, SFTP and a tracking server between them and its clients."""

from __future__ import annotations

import mlflow
import pytest
from servers import deployed


@pytest.fixture(scope="module")
def running():
    with deployed() as servers:
        yield servers


@pytest.mark.slow
def test_artifacts_go_through_the_server(running, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", running.uri)
    client = mlflow.MlflowClient(running.uri)
    run = client.create_run(client.create_experiment("e")).info.run_id
    (tmp_path / "f" / "g").mkdir(parents=True)
    (tmp_path / "f" / "a.txt").write_text("a")
    (tmp_path / "f" / "g" / "b.txt").write_text("bb")
    client.log_artifacts(run, tmp_path / "f", "x")
    assert [(f.path, f.is_dir, f.file_size) for f in client.list_artifacts(run, "x")] == [
        ("x/a.txt", False, 1),
        ("x/g", True, None),
    ]
