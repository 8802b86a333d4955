"""What a web server that is no MLflow, or does not let us in, makes of a stage: one line that says what to do."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import mlflow
import pytest
from certificates import Authority
from conftest import ROOT

from mtl import tracking
from mtl.config import params
from mtl.errors import UserError
from mtl.tracking import registry

NO_MLFLOW = "mend MLFLOW_TRACKING_URI, or start what is behind it"


@contextmanager
def answering(status: int, tls: ssl.SSLContext | None = None) -> Iterator[str]:
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
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (404, f"it does not know /api/2.0/mlflow/experiments/get-by-name: {NO_MLFLOW}"),
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


def said_over_tls(uri: str, monkeypatch) -> str:
    """What becomes of a question to MLflow, after the one whether it is there at all."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError) as refused, registry.connection() as client:
        client.get_experiment_by_name("any")
    said = str(refused.value)
    assert "\n" not in said
    assert said.startswith(f"the MLflow tracking server {uri}: ")
    return said.partition(f"{uri}: ")[2]


REACHED = f"it does not know /api/2.0/mlflow/experiments/get-by-name: {NO_MLFLOW}"  # by both questions


def test_tls_is_asked_by_mlflows_settings(tmp_path, monkeypatch):
    authority, other = Authority(tmp_path), tmp_path / "other"
    other.mkdir()
    with answering(404, authority.server()) as uri:
        for untrusting in (None, str(Authority(other).file)):
            if untrusting:
                monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", untrusting)
            said = said_over_tls(uri, monkeypatch)
            assert said.startswith("its certificate is not trusted: ")
            assert "MLFLOW_TRACKING_SERVER_CERT_PATH" in said
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", "nowhere.pem")
        assert said_over_tls(uri, monkeypatch).startswith(
            "nowhere.pem: no such file; mend or unset MLFLOW_TRACKING_SER"
        )
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(authority.file))
        assert said_over_tls(uri, monkeypatch) == REACHED
        monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
        assert "only one of these environment variables may be set" in said_over_tls(uri, monkeypatch)
        monkeypatch.delenv("MLFLOW_TRACKING_SERVER_CERT_PATH")
        assert said_over_tls(uri, monkeypatch) == REACHED


def test_a_server_that_asks_for_a_certificate_is_shown_mlflows(tmp_path, monkeypatch):
    authority = Authority(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(authority.file))
    with answering(404, authority.server(ask=True)) as uri:
        assert "MLFLOW_TRACKING_CLIENT_CERT_PATH" in said_over_tls(uri, monkeypatch)
        monkeypatch.setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", "nowhere.pem")
        assert said_over_tls(uri, monkeypatch).startswith("nowhere.pem: no such file; mend or unset")
        monkeypatch.setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", str(authority.issue("client")))
        assert said_over_tls(uri, monkeypatch) == REACHED
