"""Connections that are silent, slow or too many; signals and reloads."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
from conftest import ROOT
from gateways import COMPUTE, Client, Process, loaded, logged, picture, serving, write_project
from prometheus_client.parser import text_string_to_metric_families

from mtl.serving import server
from mtl.serving.gateway import Gateway, Limits
from mtl.serving.metrics import Metrics

PING = b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n"
BODY = {"instances": picture((0, 0, 0)).tolist()}


def connect(client: Client) -> socket.socket:
    """A connection of its own to the gateway of `client`."""
    host, port = client.base.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def samples(client: Client) -> dict[tuple[str, ...], float]:
    """The values of /metrics by name and labels."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def dribble(connection: socket.socket, piece: bytes) -> None:
    """Send `piece` again and again until the other side closes the connection."""
    connection.settimeout(0.02)
    for _ in range(1000):
        try:
            connection.sendall(piece)
            if connection.recv(10_000) == b"":
                return
        except TimeoutError:
            pass
        except ConnectionError:
            return
    raise AssertionError("the connection was never closed")


@pytest.fixture(scope="module")
def hurried() -> Iterator[Client]:
    with serving(limits=Limits(header_seconds=0.2, idle_seconds=0.2)) as (client, _, _):
        yield client
        assert client.post("/model1/invocations", json=BODY).status_code == 200


@pytest.mark.parametrize("start", [b"", b"\r\n", b"GET /ping HT", b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Le"])
def test_headers_that_never_come_end_the_connection(hurried, start):
    before = samples(hurried)["mtl_connections_dropped_total", "silence"] if start else 0
    with connect(hurried) as slow:
        slow.sendall(start)
        assert slow.recv(100) == b""
    assert samples(hurried)["mtl_connections_dropped_total", "silence"] > before


@pytest.mark.parametrize("start", [b"", PING, b"POST /nothing HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\n\r\n"])
@pytest.mark.parametrize("piece", [b"\r\n", b"X"])
def test_one_byte_after_another_ends_the_connection(hurried, start, piece):
    """The bytes are sent instead of headers, before and after an answer, and as a body that nobody reads."""
    with connect(hurried) as slow:
        slow.sendall(start)
        dribble(slow, piece)


def test_an_answer_that_nobody_takes_ends_the_connection(hurried):
    with connect(hurried) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        ask = b"GET /static-offline-docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: a\r\n\r\n"
        before = samples(hurried)["mtl_connections_dropped_total", "silence"]
        deaf.sendall(ask * 20)
        for _ in range(1000):
            if samples(hurried)["mtl_connections_dropped_total", "silence"] > before:
                return
            threading.Event().wait(0.02)
        raise AssertionError("the connection was never closed")


def test_a_model_may_take_longer_than_headers_may():
    go, started = threading.Event(), threading.Event()

    def slowly(images: np.ndarray) -> np.ndarray:
        started.set()
        assert go.wait(30)
        return COMPUTE["model1"](images)

    def load() -> dict:
        return loaded(compute={"model1": slowly})

    with serving(load, Limits(header_seconds=0.2)) as (client, _, _), ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.post, "/model1/invocations", json=BODY)
        assert started.wait(30)
        with connect(client) as silent:
            assert silent.recv(100) == b""  # so much time has passed
        go.set()
        assert answer.result().status_code == 200


def test_requests_one_after_another_and_at_once_are_answered_on_one_connection():
    with serving() as (client, _, _), connect(client) as steady:
        for count in (1, 1, 5):
            steady.sendall(PING[:10])
            steady.sendall(PING[10:] + PING * (count - 1))
            answers = b""
            while answers.count(b"HTTP/1.1 200 ") < count or not answers.endswith(b"\r\n\r\n\n"):
                answers += steady.recv(10_000)


def test_a_connection_too_many_is_told_to_come_again_and_logged_once():
    with serving(limits=Limits(connections=3)) as (client, _, _), logged() as lines:
        assert client.get("/ping").status_code == 200  # stays open
        open_ones = [connect(client) for _ in range(2)]
        for one in open_ones:
            one.sendall(PING)
            assert one.recv(1000).startswith(b"HTTP/1.1 200 ")
        for _ in range(5):
            with connect(client) as refused:  # it sends nothing, so that the answer reaches it for sure
                answer = b""
                while piece := refused.recv(1000):
                    answer += piece
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"Retry-After: 1\r\n" in answer
            assert b'{"error":"3 connections are open already' in answer
        assert samples(client)["mtl_connections_dropped_total", "limit"] == 5
        assert len([line for line in lines if "3 connections are open" in line]) == 1
        open_ones.pop().close()
        statuses = set()
        for _ in range(1000):  # until the gateway has seen that
            with connect(client) as welcome, suppress(ConnectionError):
                welcome.sendall(PING)
                statuses.add(welcome.recv(1000)[9:12])
            if b"200" in statuses:
                break
        assert b"200" in statuses
        for one in open_ones:
            one.close()


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "allowed"), [(256, 4096, 1000, 1000), (256, 512, 1000, 384), (64, 100, 1000, 1)]
)
def test_connections_leave_files_for_the_rest(soft, hard, wanted, allowed):
    program = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
    program += f"from mtl.serving import connections; print(connections.raise_file_limit({wanted}))"
    command, environment = [sys.executable, "-c", program], os.environ | {"PYTHONPATH": str(ROOT / "src")}
    assert int(subprocess.run(command, env=environment, capture_output=True, check=True).stdout) == allowed


def test_signals_during_a_reload_are_one_reload_more():
    started, go, loads = threading.Semaphore(0), threading.Semaphore(1), []

    def load() -> dict:
        loads.append(1)
        started.release()
        assert go.acquire(timeout=30)
        return loaded(str(len(loads)))

    async def main() -> None:
        gateway, wanted = Gateway(load, Limits(), Metrics()), asyncio.Event()
        await gateway.start()
        assert started.acquire(timeout=30)
        task = asyncio.create_task(server.reload_when(wanted, gateway))
        wanted.set()
        assert await asyncio.to_thread(started.acquire, timeout=30)
        for _ in range(30):
            wanted.set()
            await asyncio.sleep(0)
        go.release(2)
        assert await asyncio.to_thread(started.acquire, timeout=30)
        while gateway.version != "3":
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        assert not wanted.is_set()
        task.cancel()
        await gateway.close()

    asyncio.run(main())
    assert len(loads) == 3


HANG_UP = """
import os, signal, sys

class HangUp:
    def find_spec(self, name, *_):
        if name == "tensorflow" and self in sys.meta_path:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGHUP)

sys.meta_path.insert(0, HangUp())
"""


def test_sighup_while_tensorflow_is_imported_does_not_end_it(tensorflow, tmp_path):
    write_project(tmp_path)
    (tmp_path / "hang_up").mkdir()
    (tmp_path / "hang_up/sitecustomize.py").write_text(HANG_UP)
    gateway = Process(
        tmp_path, "--max-connections", "8", PYTHONPATH=f"{tmp_path / 'hang_up'}{os.pathsep}{ROOT / 'src'}"
    )
    with ThreadPoolExecutor(4) as pool:
        assert [one.status_code for one in pool.map(gateway.client.get, ["/ping"] * 4)] == [200] * 4
    assert gateway.stop() == 0
