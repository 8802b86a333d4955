"""`mtl serve` as a person starts it: loading, reloading, draining, and what it says where it cannot serve."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import ROOT
from gateways import TASKS, Process, write_project
from images import encoded

from mtl import files
from mtl.data import paths, store
from mtl.errors import UserError
from mtl.networks import saving
from mtl.serving import loading, server

INVOKE = "/model1/invocations"


@pytest.fixture(scope="module")
def projects(tensorflow, tmp_path_factory):
    """The same project with two sets of models."""
    folder = tmp_path_factory.mktemp("projects")
    return [write_project(folder / str(seed), seed) for seed in (0, 1)]


@pytest.fixture
def project(projects, tmp_path, monkeypatch):
    shutil.copytree(projects[0], tmp_path / "p")
    monkeypatch.chdir(tmp_path / "p")
    return tmp_path / "p"


@pytest.fixture(scope="module")
def images(projects):
    return np.load(projects[0] / "data/raw/images/x_test.npy")


def expected(project, images, task="model1"):
    return saving.read(project / "models" / f"{task}.keras").predict(images, verbose=0)


def test_reloads_lose_no_request_and_mix_no_models(projects, project, images):
    """SIGHUP under load, with models that change; then with a broken file; then SIGTERM with a request half sent."""
    server = Process(project)
    body = {"instances": images[:3].tolist()}
    known = [expected(folder, images[:3]) for folder in projects]
    stop, seen = threading.Event(), set()

    def ask() -> None:
        while not stop.is_set():
            answer = server.client.post(INVOKE, json=body)
            assert answer.status_code == 200, answer.text
            actual = np.array(answer.json()["predictions"])
            (which,) = [i for i, one in enumerate(known) if np.allclose(actual, one, atol=1e-2)]
            seen.add(which)

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(ask) for _ in range(4)]
        for times, folder in enumerate([projects[1], projects[0], projects[1]], start=1):
            for path in (folder / "models").glob("*.keras"):
                files.write_bytes(project / "models" / path.name, path.read_bytes())
            server.hang_up()
            server.wait_for("models reloaded: model1, model2", times)
        stop.set()
        for client in clients:
            client.result()
    assert seen == {0, 1}
    assert server.client.get("/v2/models/model1").json()["versions"] == ["4"]

    (project / "models/model2.keras").write_bytes(b"broken")
    server.hang_up()
    assert "models/model2.keras: not a Keras model" in server.wait_for("models not reloaded")
    files.write_bytes(project / "models/model2.keras", (projects[1] / "models/model2.keras").read_bytes())
    (project / "models/model1.keras").unlink()
    server.hang_up()
    assert "models/model1.keras" in server.wait_for("models not reloaded", 2)
    files.write_bytes(project / "models/model1.keras", (projects[1] / "models/model1.keras").read_bytes())
    rename_groups(("b_animal", "a_vehicle"))
    server.hang_up()
    assert "models/model2.keras tells animal, vehicle apart" in server.wait_for("models not reloaded", 3)
    for task in ("model1", "model2"):
        answer = server.client.post(f"/{task}/invocations", json=body).json()["predictions"]
        np.testing.assert_allclose(answer, expected(projects[1], images[:3], task), atol=1e-2)
    answer = server.client.post("/predict", data=encoded(images[0])).json()
    assert answer["answers"]["model2"]["label"] in TASKS["model2"].names

    content = encoded(images[0])
    with socket.create_connection(("127.0.0.1", int(server.client.base.rpartition(":")[2])), timeout=30) as half:
        half.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n")
        half.sendall(b"Content-Length: %d\r\n\r\n" % len(content))
        assert half.recv(100).startswith(b"HTTP/1.1 100 ")  # it waits for the body
        server.process.terminate()
        server.wait_for("Shutting down")
        half.sendall(content)
        assert half.recv(4096).startswith(b"HTTP/1.1 200 ")
    assert server.process.wait(60) == 0
    assert "Traceback" not in server.log.read_text()


def test_compiled_models_answer_as_predict_does(project, images):
    """Padded batches give the same answers; a model without labels is not served."""
    shutil.copy("models/model1.keras", "models/model9.keras")
    served = loading.from_folder(paths.MODELS)
    assert set(served) == {"model1", "model2"}
    for task, model in served.items():
        assert model.task.names == TASKS[task].names
        for count in (1, 3, 64):
            batch = np.resize(images, (count, *images.shape[1:]))
            np.testing.assert_allclose(model.compute(batch), expected(project, batch, task), atol=1e-5)
    np.testing.assert_allclose(served["model1"].task.frequencies, 0.1)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda: shutil.rmtree("models"), "models: no model of a task in data/labels; run `dvc repro`"),
        (
            lambda: shutil.copy("models/model1.keras", "models/model2.keras"),
            "models/model2.keras tells airplane, ",
        ),
        (lambda: rename_groups(("vehicle", "animal")), "models/model2.keras tells animal, vehicle .* vehicle, animal"),
        (lambda: rename_groups(("a_vehicle", "b_animal")), "models/model2.keras tells animal, vehicle .*a_vehicle, b_"),
        (
            lambda: saving.write(saving.read(paths.model_path("model1")), paths.model_path("model1")),
            "does not say which",
        ),
        (
            lambda: paths.DATASET.unlink() or other_shape(),
            "different shapes .*model1 8×8×3, model2 9×8×3",
        ),
        (lambda: other_shape(), "different shapes .*the data set 8×8×3"),
        (lambda: (paths.MODELS / "model1.keras").write_bytes(b"x"), "model1.keras: not a Keras model: "),
        (lambda: not_finite(), "NaN"),
    ],
)
def test_models_that_cannot_be_served_are_named_in_one_line(project, spoil, message):
    spoil()
    with pytest.raises(UserError, match=message) as error:
        loading.from_folder(paths.MODELS)
    assert "\n" not in str(error.value)


def other_shape() -> None:
    from mtl.networks import catalog, inference

    saving.write(inference.plain(catalog.compact((9, 8, 3), 2, [4])), paths.model_path("model2"), TASKS["model2"])


def not_finite() -> None:
    model = saving.read(paths.model_path("model2"))
    model.set_weights([np.full_like(weights, np.nan) for weights in model.get_weights()])
    saving.write(model, paths.model_path("model2"), TASKS["model2"])


def rename_groups(names: tuple[str, str]) -> None:
    """Write the labels of model2 with other names, or in another order, as `dvc repro derive_labels` does."""
    task = TASKS["model2"]
    renamed = dict(zip(task.names, names if set(names) - set(task.names) else task.names, strict=True))
    groups = {value: renamed[group] for value, group in task.groups.items()}
    store.write_targets(task.model_copy(update={"names": names, "groups": groups}), {})


def test_a_reload_keeps_every_task_that_the_project_still_has(project):
    """This happens while `dvc repro` runs: DVC removes the outputs of a stage before it runs."""
    load, _ = server.loader("models")
    assert set(load()) == {"model1", "model2"}
    content = paths.model_path("model1").read_bytes()
    paths.model_path("model1").unlink()
    with pytest.raises(UserError, match=r"models/model1\.keras"):
        load()
    with pytest.raises(UserError, match=r"models/model1\.keras"):
        load()
    files.write_bytes(paths.model_path("model1"), content)
    assert set(load()) == {"model1", "model2"}
    shutil.rmtree(paths.LABELS / "model1")  # a task that the project has no more
    assert set(load()) == {"model2"}


def test_a_reload_keeps_the_tasks_of_params_yaml_while_their_labels_are_written(project):
    (project / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    load, _ = server.loader("models")
    assert set(load()) == {"model1", "model2"}
    shutil.rmtree(paths.LABELS / "model1")
    with pytest.raises(UserError, match="data/labels/model1"):
        load()


def serve(folder, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from mtl.cli import main; main()", "serve", *arguments]
    return subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True)


@pytest.mark.slow
def test_what_it_cannot_do_it_says_in_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        failed = serve(tmp_path, "--port", str(taken.getsockname()[1]))
    assert failed.returncode == 1
    assert re.search(r"^error: cannot listen on 127.0.0.1:\d+: Address already in use; choose", failed.stderr, re.M)
    failed = serve(tmp_path, "--port", "0")
    assert failed.returncode == 1
    assert "error: models: no model of a task in data/labels" in failed.stderr.splitlines()[-1]
    assert "Traceback" not in failed.stderr
    # The registry needs a store of MLflow, not the files of a project.
    failed = serve(tmp_path, "--port", "0", "--from", "models:/joint@champion")
    assert failed.returncode == 1
    line = failed.stderr.splitlines()[-1]
    assert str(tmp_path) in line and "MLFLOW_TRACKING_URI" in line and "dvc.yaml" not in line
