"""A team's day on the servers of deploy/: PostgreSQL, SFTP, and clients that know an address and no secret."""

from __future__ import annotations

import subprocess
from pathlib import Path

import mlflow
import numpy as np
import pytest
import requests
from conftest import Project
from gateways import Process
from servers import Deployment, MLflow, deployed

import mtl
from mtl.errors import UserError
from mtl.release import promotion
from mtl.tracking import registry

pytestmark = pytest.mark.slow

NAMES = ("joint", "model1", "model2")


@pytest.fixture(scope="module")
def running():
    with deployed() as servers:
        yield servers


def train(source: Project, to: Path, server: str, **recipe: object) -> Project:
    """A copy whose DAG was run with nothing but the server's address, and `recipe` for model1."""
    project = source.copy(to)
    project.environment = source.environment | {"PYTHONPATH": str(to / "src"), "MLFLOW_TRACKING_URI": server}

    def change(tree: dict) -> None:
        tree["tasks"]["model1"]["recipe"] = "first"  # so that model2 is trained once
        tree["recipes"]["first"] = dict(tree["recipes"]["compact"]) | recipe
        tree["promote"].update(accuracy={"model1": 0.05}, contradictions=1.0, significance=0.01)

    project.edit(change)
    project.run("dvc", "repro", "-q")
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", to.name)
    return project


@pytest.fixture(scope="module")
def good(running: Deployment, fresh: Project, tmp_path_factory) -> Project:
    return train(fresh, tmp_path_factory.mktemp("trained") / "good", running.uri, epochs=12)


@pytest.fixture(scope="module")
def worse(running: Deployment, good: Project) -> Project:
    crippled = {"name": "adam", "learning_rate": 1e-9}
    return train(good, good.root.with_name("worse"), running.uri, epochs=1, optimizer=crippled)


@pytest.fixture(scope="module")
def better(running: Deployment, good: Project) -> Project:
    """Not worse, that is: the gate asks for no more."""
    return train(good, good.root.with_name("better"), running.uri, epochs=14)


@pytest.fixture
def registered(running, good, monkeypatch) -> None:
    """An empty registry, and this process in the good clone, asking the server too."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", running.uri)
    monkeypatch.chdir(good.root)
    mlflow.set_tracking_uri(running.uri)
    client = mlflow.MlflowClient(running.uri, running.uri)
    for model in client.search_registered_models():
        client.delete_registered_model(model.name)
    yield
    mlflow.set_tracking_uri(None)


def numbers() -> dict[str, list[str]]:
    return {name: [version.number for version in registry.versions(name)] for name in NAMES}


def held(project: Project) -> dict[str, str]:
    """What a version of this clone's joint model has to hold."""
    stages = project.lock()["stages"]
    outs = [out for task in ("model1", "model2") for out in stages[f"train@{task}"]["outs"] if "models/" in out["path"]]
    deps = [dep for stage in stages.values() for dep in stage.get("deps", ()) if dep["path"].startswith("data/labels/")]
    return {entry["path"]: entry["md5"] for entry in outs + deps}


def test_the_server_keeps_everything_and_the_client_no_secret(running, good):
    project = good
    for secret in running.secrets.values():
        assert secret not in project.environment.values()
        found = subprocess.run(
            ["grep", "-rlF", max(secret.split(), key=len), project.root], capture_output=True, text=True
        )
        assert found.stdout == ""
    assert not (project.root / "mlflow.db").exists()
    assert not (project.root / "mlartifacts").exists()
    stored = [path.name for path in running.sftp.artifacts.rglob("*") if path.is_file()]
    assert "model1.keras" in stored
    assert not [name for name in stored if name.endswith(".part")]
    assert project.lock()["stages"].keys() >= {"load_data", "train@model1", "main_evaluate"}


def promote() -> None:
    """`mtl promote` in this process, which has TensorFlow already."""
    promotion.promote(dry_run=False, allow_dirty=False, again=False)


def test_promoted_refused_promoted_and_rolled_back(registered, good, worse, better, monkeypatch, tensorflow, capsys):
    promote()
    assert "joint version 1 is @champion now, no version before" in capsys.readouterr().out
    promote()
    assert "joint version 1 is @champion already: nothing to do" in capsys.readouterr().out
    assert numbers() == {name: ["1"] for name in NAMES}
    assert registry.contents_of(registry.champion()) == held(good)

    monkeypatch.chdir(worse.root)
    with pytest.raises(
        UserError, match=r"joint version 2 is not promoted: model1: .*the champion is better"
    ) as refused:
        promote()
    assert "\n" not in str(refused.value)
    assert registry.champion().number == "1"

    monkeypatch.chdir(better.root)
    capsys.readouterr()
    promote()
    assert "joint version 3 is @champion now, version 1 before" in capsys.readouterr().out
    assert registry.contents_of(registry.champion()) == held(better)
    assert numbers() == {"joint": ["1", "2", "3"], "model1": ["1", "2", "3"], "model2": ["1"]}

    assert good.run("mtl", "rollback").stdout == "joint version 1 is @champion again, 3 no more\n"
    promote()
    assert "joint version 3 was rolled back: nothing done" in capsys.readouterr().out
    assert registry.champion().number == "1"


def test_what_is_champion_is_served_and_led_back_to_its_runs(running, registered, good, tmp_path, tensorflow):
    project = good
    promote()
    images = np.load(project.root / "data/raw/images/x_test.npy")[:4]
    champion = mtl.load("models:/joint@champion")
    expected = champion.predict(list(images))
    gateway = Process(tmp_path, "--from", "models:/joint@champion", MLFLOW_TRACKING_URI=running.uri)
    try:
        for task, names in champion.tasks.items():
            asked = {"instances": images.tolist()}
            answer = requests.post(f"{gateway.client.base}/{task}/invocations", json=asked, timeout=60)
            rows = np.array(answer.json()["predictions"])
            assert [names[row.argmax()] for row in rows] == [prediction.tasks[task].name for prediction in expected]
    finally:
        assert gateway.stop() == 0
    table = project.run("mtl", "runs").stdout.splitlines()
    (line,) = [line for line in table if line.startswith("metrics/main_evaluate.json")]
    assert line.endswith("joint/1 @champion")
    assert "data/raw/images" in project.run("mtl", "runs", "--tree", "joint@champion").stdout

    for uri, message in (
        ("models:/joint@champoin", "joint has no alias 'champoin'; known: champion"),
        ("models:/joint/7", "joint has no version '7'; known: 1"),
        ("models:/jiont@champion", "no registered model 'jiont'"),
    ):
        with pytest.raises(UserError) as unknown:
            mtl.load(uri)
        assert message in str(unknown.value)
        assert "\n" not in str(unknown.value)


def test_two_promotions_at_once_from_two_machines(registered, good, better):
    """Between machines there is no lock: one alias, and each version whole, whoever comes first."""
    projects = [good, better]
    done = at_once(projects)
    assert 0 in [code for code, _ in done]
    for code, said in done:
        assert code == 0 or "joint@champion was moved" in said, said
    champion = registry.champion()
    assert registry.contents_of(champion) in [held(project) for project in projects]
    winner = [registry.contents_of(champion) == held(project) for project in projects].index(True)
    assert done[winner][0] == 0
    assert {name: len(found) for name, found in numbers().items()} == {"joint": 2, "model1": 2, "model2": 1}
    wanted = sorted(str(sorted(held(project).items())) for project in projects)
    assert (
        sorted(str(sorted(registry.contents_of(version).items())) for version in registry.versions("joint")) == wanted
    )


def test_the_same_model_from_two_machines_at_once_is_one_version(registered, good, tmp_path):
    other = good.copy(tmp_path / "other")
    other.environment = good.environment | {"PYTHONPATH": str(other.root / "src")}
    done = at_once([good, other])
    assert 0 in [code for code, _ in done]
    assert {name: len(found) for name, found in numbers().items()} == dict.fromkeys(NAMES, 1)
    assert registry.contents_of(registry.champion()) == held(good)


def at_once(projects: list[Project]) -> list[tuple[int, str]]:
    """Run `mtl promote` in each clone at the same time: exit status and what it said."""
    started = [
        subprocess.Popen(
            ["mtl", "promote"],
            cwd=project.root,
            env=project.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for project in projects
    ]
    return [(process.wait(), out) for process in started for out in [process.communicate()[0]]]


def test_uncommitted_changes_are_refused(registered, good, tmp_path):
    project = good.copy(tmp_path / "p")
    project.environment = project.environment | {"PYTHONPATH": str(project.root / "src")}
    project.edit(lambda tree: tree["promote"].update(contradictions=0.5))
    refused = project.run("mtl", "promote", check=False)
    assert refused.stderr == "error: uncommitted changes (params.yaml); commit them, or --allow-dirty\n"
    assert numbers() == {name: [] for name in NAMES}


@pytest.fixture(scope="module")
def guarded(running: Deployment):
    """A second tracking server on the same database and SFTP server, with accounts."""
    pytest.importorskip("flask_wtf")
    folder = running.server.folder
    more = {"MLFLOW_AUTH_ADMIN_PASSWORD": "a-long-password", "MLFLOW_FLASK_SERVER_SECRET_KEY": "of-the-sessions"}
    server = MLflow(folder, running.database, running.sftp, running.secrets, **more)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def test_with_accounts_only_who_has_one_gets_in(guarded, good, tmp_path):
    project = good.copy(tmp_path / "p")
    project.environment |= {"PYTHONPATH": str(project.root / "src"), "MLFLOW_TRACKING_URI": guarded.uri}
    stage = ("dvc", "repro", "-f", "-s", "derive_labels")
    wrong = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "not-the-password"}
    right = wrong | {"MLFLOW_TRACKING_PASSWORD": "a-long-password"}
    for credentials in ({}, wrong):
        for command in (("mtl", "promote"), ("mtl", "runs"), stage):
            failed = project.run(*command, check=False, **credentials)
            assert failed.returncode != 0
            (line,) = [line for line in failed.stderr.splitlines() if line.startswith("error:")]
            assert f"the MLflow tracking server {guarded.uri}: wrong or no user and password" in line
            assert "Traceback" not in failed.stderr
            assert "not-the-password" not in failed.stdout + failed.stderr
        project.run("dvc", "checkout", "-q")  # DVC removed what the stage would have made
    project.run(*stage, **right)
    assert "models/model1.keras" in project.run("mtl", "runs", **right).stdout
