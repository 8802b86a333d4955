"""A tracking server, a door before it that is shut at a chosen request, and all that a store holds of a run."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import shutil
import ssl
import sys
import threading
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mlflow
import yaml
from conftest import ROOT
from matplotlib.figure import Figure
from mlflow import MlflowClient, artifacts
from servers import Server, free_port

from mtl import tracking
from mtl.config import params
from mtl.data.store import Dataset

OWN = {"mlflow.runName", "mlflow.source.name", "mlflow.user"}  # tags that differ from run to run


NOT_WRITTEN = b'{"error_code": "BAD_REQUEST", "message": "(psycopg.errors.ReadOnlySqlTransaction) cannot"}'
DATASET = Dataset("small", "folder", {}, "png", 4, 0, 2, (2, 2, 3), {"class": "text"})
MODEL = """
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class Echo(PythonModel):
    def predict(self, context, model_input: list[str], params=None):
        return model_input


set_model(Echo())
"""


class Tracking(Server):
    """A real `mlflow server` on loopback with SQLite and a folder: what can be tested without more."""

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{folder}/m.db", "--artifacts-destination", str(folder / "a")]
        # Its workers for evaluation jobs would leave the process group, and outlive the test.
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | environment
        super().__init__([*command, "--workers", "1", *options], folder, environment, None)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False


class Door:
    """An HTTP proxy on loopback. `rule` is asked about each request, `PUT /path`, before it goes to the server.

    What it returns: None (let it through), "shut" (the connection is closed, and so it stays for all that come), "lost"
    (the server gets it, its answer is lost, and then it is shut), "hang" (no answer from now on), "404" (a page, as an
    older MLflow has it), "proxy" (the same for all that come, as a proxy has it whose server is away), "400" (what
    MLflow says where its database fails). `tls` is what it is asked by, if not in the clear.
    """

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.seen: list[str] = []
        self.rule: Callable[[str], str | None] = lambda request: None
        self.state: str | None = None
        self._over = threading.Event()
        door = self

        class Handler(BaseHTTPRequestHandler):
            def handle_one(self) -> None:
                request = f"{self.command} {self.path}"
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                does = door.state or door.rule(request)
                door.seen.append(request)
                if does in ("shut", "lost", "hang", "proxy"):
                    door.state = "shut" if does == "lost" else does
                if does == "hang":
                    door._over.wait()
                elif does in ("404", "proxy"):
                    self.send_error(404)
                elif does == "400":
                    self.answer(400, "application/json", NOT_WRITTEN)
                elif does != "shut":
                    with contextlib.suppress(OSError, http.client.HTTPException):  # the server is away
                        self.forward(body, answer=does is None)

            def forward(self, body: bytes, answer: bool) -> None:
                server = http.client.HTTPConnection("127.0.0.1", port)
                server.request(self.command, self.path, body, dict(self.headers))
                got = server.getresponse()
                content = got.read()
                server.close()
                if answer:
                    self.answer(got.status, got.getheader("Content-Type", ""), content)

            def answer(self, status: int, kind: str, content: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.uri = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def at(self, number: int, does: str) -> None:
        """Do this at the request of that number, counted from 0 and from now."""
        first = len(self.seen)
        self.rule = lambda request: does if len(self.seen) - first == number else None

    def at_first(self, what: str, does: str) -> None:
        """Do this at the first request that the pattern `what` is found in."""
        self.rule = lambda request: does if re.search(what, request) else None

    def open(self) -> None:
        """Let everything through from now on."""
        self.state, self.rule = None, lambda request: None

    def close(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def save_model(folder: Path) -> Path:
    """A model in MLflow's format, quickly made."""
    (folder / "echo.py").write_text(MODEL)
    mlflow.pyfunc.save_model(folder / "model", python_model=folder / "echo.py", pip_requirements=["mlflow"])
    return folder / "model"


def stage(saved: Path) -> tracking.Run:
    """A stage that logs one thing of each kind."""
    with tracking.stage_run("load_data", params.read(ROOT / "params.yaml")) as run:
        run.log_dataset(DATASET)
        for epoch in (1, 2):
            run.log_epoch({"epoch": epoch, "loss": 1 / epoch, "val_loss": 2 / epoch})
        run.log_metrics({"test_acc": 0.5, "test_loss": 0.25})
        run.log_json({"a": 2, "b": 2}, "counts.json")
        run.log_figures({"gallery/one": Figure((1, 1))})
        run.log_saved("model", "model", lambda files: shutil.copytree(saved, files, dirs_exist_ok=True))
    return run


def stored(run: tracking.Run, folder: Path) -> dict:
    """What the store has of a run; `folder` for what is downloaded for it."""
    folder.mkdir(exist_ok=True)
    return _content(mlflow.MlflowClient(), run.identity.run_id, folder)


def _content(client: MlflowClient, run_id: str, folder: Path) -> dict[str, Any]:
    """What the store holds of a run, without what differs between two runs of the same: names, ids, times."""
    run = client.get_run(run_id)
    history = {key: client.get_metric_history(run_id, key) for key in run.data.metrics}
    models = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'")
    assert {output.model_id for output in run.outputs.model_outputs} == {model.model_id for model in models}
    return {
        "status": run.info.status,
        "params": run.data.params,
        "metrics": {key: sorted((point.step, point.value) for point in points) for key, points in history.items()},
        "tags": _common(run.data.tags),
        "inputs": [given.dataset.to_dictionary() for given in run.inputs.dataset_inputs],
        "artifacts": _files(client.download_artifacts(run_id, "", str(_new(folder)))),
        "models": [
            {
                "name": model.name,
                "status": str(model.status),
                "params": model.params,
                "tags": _common(model.tags),
                "metrics": sorted((metric.key, metric.value) for metric in model.metrics or ()),
                "files": _files(artifacts.download_artifacts(model.artifact_location, dst_path=str(_new(folder)))),
            }
            for model in models
        ],
    }


def _common(tags: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in tags.items() if key not in OWN}


def _new(folder: Path) -> Path:
    made = folder / str(len(list(folder.iterdir())))
    made.mkdir()
    return made


def _files(folder: str) -> dict[str, Any]:
    """Path -> md5; of MLmodel what is in it, without ids, time and place."""
    found: dict[str, Any] = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.name == "MLmodel":
            said = yaml.safe_load(path.read_text())
            own = {"model_id", "model_uuid", "run_id", "utc_time_created", "artifact_path"}
            assert own <= set(said)
            found["MLmodel"] = {key: value for key, value in said.items() if key not in own}
        elif path.is_file():
            found[str(path.relative_to(folder))] = hashlib.md5(path.read_bytes()).hexdigest()
    return found
