"""`mtl request` against small real servers on loopback: what it asks, what it shows, when it tries again."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from conftest import ROOT, Project, task_spec
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mtl.data import store
from mtl.errors import UserError
from mtl.serving.request import client, comparison, servers
from mtl.sources import decoding
from mtl.tasks.targets import Targets

CLASSES = {"model1": ["cat", "dog", "ship"], "model2": ["animal", "vehicle"]}
SPECS = {task: task_spec(task, classes) for task, classes in CLASSES.items()}
CAT = {"predictions": [[0.75, 0.125, 0.125]]}
ANIMAL = {"predictions": [[0.875, 0.25]]}  # two sigmoids need not sum to one


class Reply(NamedTuple):
    """A server's reply to one request; without a status it closes the connection, or holds it until the end."""

    status: int | None = 200
    body: object = b""
    headers: dict[str, str] = {}  # noqa: RUF012
    hold: bool = False


class Asked(NamedTuple):
    """A server's address and the requests that it received: path, parsed body and Authorization header."""

    url: str
    requests: list[tuple[str, dict]]
    authorization: list[str | None]


@contextmanager
def serving(*replies: Reply) -> Iterator[Asked]:
    """A server that gives `replies` in turn, the last one ever after."""
    requests: list[tuple[str, dict]] = []
    authorization: list[str | None] = []
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            authorization.append(self.headers["Authorization"])
            requests.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            reply = replies[min(len(requests), len(replies)) - 1]
            if reply.hold:
                ended.wait()
            if reply.status is None:
                return
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in (reply.headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Asked(f"http://127.0.0.1:{server.server_port}", requests, authorization)
    finally:
        ended.set()
        server.shutdown()
        server.server_close()


def refused() -> str:
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A folder with params.yaml and the data of two tasks, as the DAG leaves them."""
    root = tmp_path_factory.mktemp("request")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    (root / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    dataset = store.Dataset("test", "folder", {}, "png", 4, 0, 4, (8, 8, 3), {"class": "text"})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        store.write_raw(dataset, pa.table({"split": ["test"] * 4}), {"test": images})
        for spec in SPECS.values():
            targets = Targets(np.array([0, 1, 0, 1], np.uint8), np.ones(4, bool))
            store.write_targets(spec, {"test": targets})
    drop = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    environment = {key: value for key, value in os.environ.items() if key.upper() not in drop}
    environment |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return Project(root, environment | {"PYTHONPATH": str(ROOT / "src")})


def cells(text: str) -> list[list[str]]:
    """The rows of the table without its header and the milliseconds."""
    return [line.split()[:-1] for line in text.splitlines()[1:]]


def test_it_asks_each_server_and_compares_with_the_label(project):
    with serving(Reply(body=CAT)) as one, serving(Reply(body=ANIMAL)) as two:
        done = project.run("mtl", "request", "--index", "1", f"model1={one.url}", f"model2={two.url}/")
    assert done.stdout.splitlines()[0].split() == ["task", "expected", "predicted", "probability", "status", "ms"]
    assert cells(done.stdout) == [
        ["model1", "dog", "cat", "0.7500", "200"],
        ["model2", "vehicle", "animal", "0.8750", "200"],
    ]
    image = np.load(project.root / "data/raw/images/x_test.npy")[1]
    assert one.requests == two.requests == [("/invocations", {"instances": [image.tolist()]})]


def test_the_joint_model_answers_for_all_tasks(project):
    row = {"model1": "ship", "model1_probability": 0.5, "model2": "vehicle", "model2_probability": 1.0}
    with serving(Reply(body={"predictions": [row]})) as server:
        done = project.run("mtl", "request", "--index", "0", f"joint={server.url}")
    assert cells(done.stdout) == [
        ["model1", "cat", "ship", "0.5000", "200"],
        ["model2", "animal", "vehicle", "1.0000", "200"],
    ]


def test_a_gateway_is_asked_for_every_task(project):
    with serving(Reply(body=CAT), Reply(body=ANIMAL)) as server:
        done = project.run("mtl", "request", "--index", "0", server.url)
    assert [path for path, _ in server.requests] == ["/model1/invocations", "/model2/invocations"]
    assert [row[0] for row in cells(done.stdout)] == ["model1", "model2"]


def test_only_a_gateway_is_told_the_token(project):
    with serving(Reply(body=CAT), Reply(body=ANIMAL)) as gateway, serving(Reply(body=CAT)) as model:
        servers = [gateway.url, f"model1={model.url}"]
        done = project.run("mtl", "request", "--index", "0", *servers, MTL_SERVE_TOKEN="secret")
    assert gateway.authorization == ["Bearer secret"] * 2
    assert model.authorization == [None]
    assert "secret" not in done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_image_file_becomes_what_the_data_set_would_have_made_of_it(project, tmp_path, kind):
    pixels = np.random.default_rng(1).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    path = tmp_path / f"picture.{kind.lower()}"
    Image.fromarray(pixels).save(path, kind)
    with serving(Reply(body=CAT)) as server:
        done = project.run("mtl", "request", "--image", str(path), f"model1={server.url}")
    assert cells(done.stdout) == [["model1", "-", "cat", "0.7500", "200"]]
    wanted, _ = decoding.decode(path.read_bytes(), path.name, size=8)
    assert server.requests[0][1] == {"instances": [wanted.tolist()]}


def test_an_image_file_is_resized_to_the_height_and_the_width(project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = store.Dataset("t", "folder", {}, "png", 1, 0, 1, (2, 3, 3), {})
    store.write_raw(dataset, pa.table({"split": ["test"]}), {"test": np.zeros((1, 2, 3, 3), np.uint8)})
    Image.fromarray(np.full((20, 20, 3), 7, np.uint8)).save("grey.png")
    assert comparison.read_image(Path("grey.png")).shape == (2, 3, 3)


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_busy_server_is_asked_again(project, status):
    busy = Reply(status, b"busy", {"Retry-After": "0"})
    with serving(busy, busy, Reply(body=CAT)) as server:
        done = project.run("mtl", "request", "--index", "0", f"model1={server.url}")
    assert len(server.requests) == 3
    assert cells(done.stdout)[0][-1] == "200"


def test_retry_after_is_waited_for_but_never_longer_than_the_timeout(project):
    with serving(Reply(503, b"", {"Retry-After": "3600"}), Reply(body=CAT)) as server:
        project.run("mtl", "request", "--index", "0", "--timeout", "1", f"model1={server.url}")
    assert len(server.requests) == 2


def test_a_server_that_stays_busy_is_an_error(project):
    with serving(Reply(503, {"detail": "the queue is full"})) as server:
        done = project.run("mtl", "request", "--index", "0", "--retries", "2", f"model1={server.url}", check=False)
    assert (len(server.requests), done.returncode) == (3, 1)
    assert done.stderr.startswith(f"error: model1 at {server.url}/invocations: status 503: the queue is full")


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(400, {"error_code": "BAD_REQUEST", "message": "wrong\nshape"}), "status 400: wrong shape"),
        (Reply(500, b"<h1>\x1b[31moops</h1>"), "status 500: <h1>[31moops</h1>"),
        (Reply(404), "status 404: Not Found"),
        (Reply(302, b"", {"Location": "http://127.0.0.1:9/"}), "status 302: Found"),
        (Reply(200, b"<html>"), "JSON: <html>"),
        (Reply(200, {"outputs": []}), "3 probabilities of model1: {'outputs': []}"),
        (Reply(200, ANIMAL), "3 probabilities of model1: {'predictions': [[0.875, 0.25]]}"),
        (
            Reply(200, b'{"predictions": [[NaN, 0, 1]]}'),
            "3 probabilities of model1: {'predictions': [[nan, 0, 1]]}",
        ),
        (Reply(None), "closed connection"),
        (Reply(hold=True), "0.5 s"),
    ],
)
def test_what_is_no_answer_is_said_in_one_line_and_not_asked_for_again(project, reply, message):
    with serving(reply) as server, serving(Reply(body=ANIMAL)) as other:
        servers = [f"model1={server.url}", f"model2={other.url}"]
        done = project.run("mtl", "request", "--index", "0", "--timeout", "0.5", *servers, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: model1 at {server.url}/invocations: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert len(server.requests) == 1
    status = str(reply.status) if reply.status and not reply.hold else "-"
    assert cells(done.stdout) == [["model1", "cat", "-", "-", status], ["model2", "animal", "animal", "0.8750", "200"]]


def test_a_refused_connection_is_an_error_without_the_password(project):
    url = refused()
    secret = url.replace("//", "//user:secret@")
    done = project.run("mtl", "request", "--index", "0", "--retries", "1", f"joint={secret}", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: joint at {url}/invocations: ")
    assert "Connection refused" in done.stderr
    assert "secret" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--index", "4", "model1=http://127.0.0.1:1"], "error: --index 4: data/raw has 4 test images"),
        (
            ["--index", "0", "other=http://127.0.0.1:1"],
            "'other' in params.yaml; known: model1, model2, joint",
        ),
        (["--index", "0", "model1=127.0.0.1:1"], "error: '127.0.0.1:1': "),
        (["--index", "0", "http://[::1"], "error: 'http://[::1': "),
        (["--index", "0"], "Missing argument 'SERVER...'"),
        (["model1=http://127.0.0.1:1"], "--index and --image"),
        (["--image", "none.png", "model1=http://127.0.0.1:1"], "error: none.png: No such file or directory\n"),
        (["--image", "params.yaml", "model1=http://127.0.0.1:1"], "error: params.yaml: not a whole image"),
    ],
)
def test_what_cannot_be_asked_is_said_in_one_line(project, arguments, message):
    failed = project.run("mtl", "request", *arguments, check=False)
    assert failed.returncode in (1, 2)
    assert message in failed.stderr
    assert "Traceback" not in failed.stderr


def test_it_needs_neither_tensorflow_nor_mlflow(project):
    code = """
import sys
from mtl.cli import cli
try:
    cli(["request", "--index", "0", sys.argv[1]])
finally:
    assert not {"tensorflow", "keras", "mlflow", "dvc"} & set(sys.modules)
"""
    with serving(Reply(body=CAT)) as server:
        done = project.run("python", "-c", code, f"model1={server.url}")
    assert cells(done.stdout) == [["model1", "cat", "cat", "0.7500", "200"]]


KEYS = ["predictions", "model1", "model1_probability"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["predictions", "model1", "model1_probability"]), inner)
    ),
)


@given(json_values, st.sampled_from(["model1", "joint"]))
def test_whatever_a_server_says_is_predictions_or_a_value_error(answer, task):
    try:
        predicted = client.read(task, answer, SPECS)
    except ValueError:
        return
    assert predicted
    assert all(np.isfinite(probability) for _, probability in predicted.values())


@given(st.text(max_size=30))
def test_whatever_is_given_as_a_server_is_an_address_or_a_user_error(text):
    try:
        asked = servers.parse([text], ["model1"])
    except UserError:
        return
    assert asked[0].url.endswith("/invocations")
