"""MLflow's accounts, behind TLS: what one does that may write and not delete, as all do that `admin` makes."""

from __future__ import annotations

import mlflow
import pytest
import requests
from certificates import Authority
from conftest import ROOT
from outages import Door, Tracking, save_model, stage

from mtl import tracking
from mtl.config import params
from mtl.release import promotion
from mtl.tracking import artifacts, registry
from mtl.tracking import server as server_module

pytestmark = pytest.mark.slow

HOLDS = "models/a.keras"
ADMIN, ANNA = ("admin", "a-long-password"), ("anna", "another-password")
ACCOUNTS = """[mlflow]
default_permission = EDIT
database_uri = sqlite:///{folder}/accounts.db
admin_username = admin
admin_password = a-long-password
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """With accounts, as deploy/server.sh has them: who is no administrator may write everywhere and delete nothing."""
    pytest.importorskip("flask_wtf")
    folder = tmp_path_factory.mktemp("server")
    (folder / "accounts.ini").write_text(ACCOUNTS.format(folder=folder))
    more = {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "accounts.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "of-the-sessions",
    }
    running = Tracking(folder, "--app-name", "basic-auth", **more)
    try:
        running.start()
        asked = {"json": dict(zip(("username", "password"), ANNA, strict=True)), "auth": ADMIN, "timeout": 120}
        requests.post(f"{running.uri}/api/2.0/mlflow/users/create", **asked).raise_for_status()
        yield running
    finally:
        running.kill()


@pytest.fixture
def door(server, tmp_path, monkeypatch):
    """A proxy with TLS before it, for an empty repository, and patience."""
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    authority = Authority(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(authority.file))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")
    monkeypatch.setattr(server_module, "SECONDS", 120)
    proxy = Door(server.port, authority.server())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
    mlflow.set_tracking_uri(proxy.uri)
    yield proxy
    proxy.close()
    mlflow.set_tracking_uri(None)


def enter(monkeypatch, account: tuple[str, str]) -> None:
    """Work as somebody."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", account[0])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", account[1])


def test_who_may_write_and_not_delete_promotes_and_goes_back(server, door, tmp_path, monkeypatch, capsys):
    enter(monkeypatch, ADMIN)
    assert stage(save_model(tmp_path)).lost == []
    model = artifacts.logged_model("load_data", "model", {})
    first, second = (registry.register("joint", model, {HOLDS: md5}, {}) for md5 in ("1", "2"))

    enter(monkeypatch, ANNA)
    registry.move_champion(first, None)
    registry.move_champion(second, "1")
    promotion.rollback(None)
    assert capsys.readouterr().out.endswith("joint version 1 is @champion again, 2 no more\n")
    assert registry.version("joint", "2").rolled_back
    registry.move_champion(second, "1")  # `mtl promote --again`
    assert registry.champion().number == "2"
    assert not registry.champion().rolled_back
    assert registry.champion().tags[registry.PREVIOUS] == "1"

    others = []

    def another_is_first(request: str) -> None:
        if "model-versions/create" in request:
            door.open()  # once
            others.append(registry.register("joint", model, {HOLDS: "3"}, {}))

    door.rule = another_is_first
    third = registry.register("joint", model, {HOLDS: "3"}, {})
    assert third.number == "3"
    assert others == [third]
    assert [request.split()[0] for request in door.seen].count("DELETE") == 1
    assert [version.number for version in registry.versions("joint")] == ["1", "2", "3", "4"]  # 4 could not be deleted
    assert registry.register("joint", model, {HOLDS: "3"}, {}) == third


def test_a_server_behind_tls_that_is_back_before_the_end_gets_all_of_it(door, monkeypatch, capsys):
    enter(monkeypatch, ANNA)
    door.at_first("log-batch", "lost")
    with tracking.stage_run("tls", params.read(ROOT / "params.yaml")) as run:
        run.log_metrics({"a": 1.0})
        door.open()
    assert run.lost == run.pending == []
    assert "logged after all: tags, parameters, metrics, end of the run" in capsys.readouterr().err
    assert mlflow.get_run(run.identity.run_id).data.metrics == {"a": 1.0}
