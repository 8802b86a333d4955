"""What a web server that is no MLflow, or does not let us in, makes of a stage: one line that says what to do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import mlflow
import pytest
from conftest import ROOT

from mtl import params, tracking
from mtl.errors import UserError


@contextmanager
def answering(status: int) -> Iterator[str]:
    """The address of a web server on loopback that answers everything with `status` and a page."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"<!doctype html>\n<title>no</title>")

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (
            404,
            "it does not know /api/2.0/mlflow/experiments/get-by-name: mend MLFLOW_TRACKING_URI, or start what is behind it",
        ),
        (401, "wrong or no user and password; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
    ],
)
def test_a_server_that_does_not_take_us_is_one_line(tmp_path, monkeypatch, status, said):
    monkeypatch.chdir(tmp_path)
    with answering(status) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.replace("//", "//user:secret@"))
        try:
            with (
                pytest.raises(UserError) as refused,
                tracking.stage_run("load_data", params.read(ROOT / "params.yaml")),
            ):
                raise AssertionError("the stage must not begin")
        finally:
            mlflow.set_tracking_uri(None)
    assert str(refused.value) == f"the MLflow tracking server {uri}: {said}"
