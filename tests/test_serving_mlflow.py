"""The same questions to the gateway and to `mlflow models serve` of the same model; models out of the registry."""

from __future__ import annotations

import json

import mlflow
import numpy as np
import pytest
import requests
from gateways import TASKS, Process, write_project
from servers import mlflow_serving

from mtl import tracking
from mtl.networks import saving
from mtl.serving import registry

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tensorflow, tmp_path_factory):
    return write_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def store(project, tmp_path_factory):
    """An MLflow store with model1, and twice the joint model, registered as `joint` with the alias `champion` on 1."""
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    experiment = mlflow.create_experiment("e", artifact_location=(folder / "artifacts").as_uri())
    images = np.load(project / "data/raw/images/x_test.npy")
    with mlflow.start_run(experiment_id=experiment) as active:
        run = tracking.Run(tracking.identify("e", active.info.run_id))
        run.log_model(saving.read(project / "models/model1.keras"), TASKS["model1"], (), images)
        run.log_joint_model(project / "models", images)
        assert run.lost == run.pending == []
    logged = {model.name: model.model_uri for model in mlflow.search_logged_models([experiment], output_format="list")}
    for _ in range(2):
        mlflow.register_model(logged["joint"], "joint")
    client = mlflow.MlflowClient(uri)
    client.set_registered_model_alias("joint", "champion", "1")
    yield uri, logged, client
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def mlflow_url(store, tmp_path_factory):
    """The URL of a live `mlflow models serve` of model1."""
    uri, logged, _ = store
    with mlflow_serving(logged["model"], uri, tmp_path_factory.mktemp("log") / "log") as url:
        yield url


@pytest.fixture(scope="module")
def gateway_url(project):
    server = Process(project)
    yield server.client.base + "/model1"
    assert server.stop() == 0


def questions() -> dict[str, object]:
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3))
    nested, flat = images.tolist(), images.reshape(3, -1).tolist()

    def with_pixel(value: object) -> dict[str, object]:
        changed = images.tolist()
        changed[0][0][0][0] = value
        return {"instances": changed}

    return {
        "instances": {"instances": nested},
        "inputs": {"inputs": nested},
        "one": {"inputs": nested[:1]},
        "whole floats": {"instances": images.astype(float).tolist()},
        "fractions": {"instances": (images * 0.99).tolist()},
        "split": {"dataframe_split": {"columns": ["image"], "data": [[row] for row in flat]}},
        "split without names": {"dataframe_split": {"data": [[row] for row in flat]}},
        "records": {"dataframe_records": [{"image": row} for row in flat]},
        "params": {"instances": nested, "params": {"a": 1}},
        "more keys": {"instances": nested, "signature_name": "x"},
        "above": with_pixel(256),
        "below": with_pixel(-1),
        "nan": with_pixel(float("nan")),
        "infinite": with_pixel(float("inf")),
        "text": with_pixel("a"),
        "null": with_pixel(None),
        "empty": {"instances": []},
        "no key": {},
        "two keys": {"instances": nested, "inputs": nested},
        "other size": {"instances": images[:, :5].tolist()},
        "not in a batch": {"instances": nested[0]},
        "ragged": {"instances": [nested[0], nested[1][:3]]},
        "by name": {"instances": [{"image": nested[0]}]},
        "by column": {"inputs": {"image": nested}},
        "a number": {"inputs": 3},
        "a text": {"inputs": "abc"},
        "nothing": {"inputs": None},
        "nested split": {"dataframe_split": {"columns": ["image"], "data": [[image] for image in nested]}},
        "wide split": {"dataframe_split": {"data": flat}},
        "short split": {"dataframe_split": {"data": [[[1, 2]]]}},
        "empty split": {"dataframe_split": {"data": []}},
        "split is a list": {"dataframe_split": [1]},
        "split without data": {"dataframe_split": {"columns": ["a"]}},
        "split with more": {"dataframe_split": {"data": [[1]], "x": 1}},
        "records are an object": {"dataframe_records": {"a": 1}},
        "a list": [1],
        "no JSON": b"{",
        "no body": b"",
        "no UTF-8": b"\xff\xfe",
    }


@pytest.mark.parametrize("name", list(questions()))
def test_a_client_changes_only_the_url(mlflow_url, gateway_url, name):
    question = questions()[name]
    body = question if isinstance(question, bytes) else json.dumps(question).encode()
    headers = {"Content-Type": "application/json"}
    them, us = (
        requests.post(f"{url}/invocations", data=body, headers=headers, timeout=60) for url in (mlflow_url, gateway_url)
    )
    assert us.status_code == them.status_code
    assert us.headers["Content-Type"] == them.headers["Content-Type"]
    answer, expected = us.json(), them.json()
    if them.status_code == 200:
        assert answer.keys() == expected.keys() == {"predictions"}
        np.testing.assert_allclose(answer["predictions"], expected["predictions"], atol=1e-5)
    else:
        assert answer.keys() == {"error_code", "message"}
        assert answer["error_code"] == expected["error_code"]


@pytest.mark.parametrize("kind", ["text/xml", "application/json; charset=latin-1", "application/json; a=b"])
def test_the_same_content_types_are_refused(mlflow_url, gateway_url, kind):
    them, us = (
        requests.post(f"{url}/invocations", data=b"{}", headers={"Content-Type": kind}, timeout=60)
        for url in (mlflow_url, gateway_url)
    )
    assert us.status_code == them.status_code == 415


@pytest.mark.parametrize("path", ["ping", "health", "version"])
def test_the_same_is_said_of_health_and_version(mlflow_url, gateway_url, path):
    them, us = (requests.get(f"{url}/{path}", timeout=60) for url in (mlflow_url, gateway_url.removesuffix("/model1")))
    assert (us.status_code, us.text, us.headers["Content-Type"]) == (200, them.text, them.headers["Content-Type"])


def test_the_joint_model_is_served_from_the_registry_and_follows_its_alias(store, project, tmp_path):
    """In a folder without models or data: the store alone knows them."""
    uri, _, client = store
    server = Process(tmp_path, "--from", "models:/joint@champion", MLFLOW_TRACKING_URI=uri)
    try:
        images = np.load(project / "data/raw/images/x_test.npy")[:2]
        for version in ("1", "2"):
            if version == "2":
                client.set_registered_model_alias("joint", "champion", version)
                server.wait_for("models reloaded: model1, model2")
            assert server.client.get("/v2/models/model2").json()["versions"] == [version]
            for task in TASKS:
                answer = server.client.post(f"/v1/models/{task}:predict", json={"instances": images.tolist()}).json()
                expected = saving.read(project / f"models/{task}.keras").predict(images, verbose=0)
                np.testing.assert_allclose(answer["predictions"], expected, atol=1e-5)
    finally:
        assert server.stop() == 0


def test_one_task_out_of_the_registry(store, project, tmp_path, monkeypatch):
    uri, logged, _ = store
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.register_model(logged["model"], "model1")
    served = registry.load("models:/model1/1")
    assert served["model1"].task.names == TASKS["model1"].names
    assert served["model1"].version == "1"
