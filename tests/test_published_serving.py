"""The published way of serving: an `mlflow models serve` per model, and the client that asks them all."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Project


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(project: Project, model: str, log: Path) -> Iterator[str]:
    """The address of what the README's line starts for `model`, once it answers."""
    port = free_port()
    command = f'mlflow models serve --env-manager local -m "$(mtl uri {shlex.quote(model)})" -p {port}'
    environment = project.environment | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, shell=True, cwd=project.root, env=environment, stdout=file, stderr=file, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 300
        url = f"http://127.0.0.1:{port}"
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/ping", timeout=5):
                break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_the_published_way_of_serving_answers_as_the_models_do(done: Project, tmp_path, tensorflow):
    from mtl.networks import saving

    with contextlib.ExitStack() as stack:
        url = {
            name: stack.enter_context(serving(done, name, tmp_path / f"{name}.log"))
            for name in ("model1", "model2", "joint")
        }
        servers = [f"{name}={url[name]}" for name in ("model1", "model2", "joint")]
        of_index = done.run("mtl", "request", "--index", "7", *servers)
        image = next((done.root / "data/external/test/cat").iterdir())
        of_file = done.run("mtl", "request", "--image", str(image), *servers)
        swapped = done.run("mtl", "request", "--index", "7", f"model1={url['model2']}", check=False)

    pixels = np.load(done.root / "data/raw/images/x_test.npy")[7:8]
    wanted = []
    for task in ("model1", "model2"):
        probabilities = saving.read(done.root / f"models/{task}.keras").predict(pixels, verbose=0)[0]
        classes = json.loads((done.root / f"data/labels/{task}/task.json").read_text())["names"]
        label = classes[np.load(done.root / f"data/labels/{task}/y_test.npy")[7]]
        wanted.append([task, label, classes[probabilities.argmax()], probabilities.max(), "200"])
    rows = [line.split() for line in of_index.stdout.splitlines()[1:]]
    assert len(rows) == 4
    for row, (task, label, predicted, probability, status) in zip(rows, wanted + wanted, strict=True):
        assert [row[0], row[1], row[2], row[4]] == [task, label, predicted, status]
        assert float(row[3]) == pytest.approx(probability, abs=1e-4)
    assert [line.split()[1] for line in of_file.stdout.splitlines()[1:]] == ["-"] * 4
    assert swapped.returncode == 1
    assert swapped.stderr.startswith(f"error: model1 at {url['model2']}/invocations: ")
    assert "10 probabilities of model1" in swapped.stderr
