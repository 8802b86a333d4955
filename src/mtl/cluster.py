"""The machines that train one model together: what TF_CONFIG says of them, and how they find each other."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from mtl.errors import UserError, describe_os_error
from mtl.params import Hardware

VARIABLE = "TF_CONFIG"
EXAMPLE = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
GREETING = "mtl worker"  # how a worker that waits answers; TensorFlow's own server at the same address does not
ANSWER_SECONDS = 2.0  # for one greeting


@dataclass(frozen=True)
class Cluster:
    """The workers' addresses, `host:port`, the chief's first, and which of them this process is."""

    workers: tuple[str, ...]
    index: int

    @property
    def chief(self) -> bool:
        """Whether this process is the one that writes: checkpoints, the model, metrics, MLflow."""
        return self.index == 0


def of(hardware: Hardware) -> Cluster:
    """The cluster that this process is part of; itself alone where the strategy is not `multi_worker`."""
    return read() if hardware.strategy == "multi_worker" else Cluster(("",), 0)


def read() -> Cluster:
    """The cluster of TF_CONFIG. Raises UserError, one line, where it is missing or says what cannot be."""
    text = os.environ.get(VARIABLE, "")
    if not text:
        raise UserError(f"strategy multi_worker: {VARIABLE} is not set; each worker needs its own, like {EXAMPLE}")
    try:
        content = json.loads(text)
    except ValueError as error:
        raise UserError(f"{VARIABLE} is not valid JSON ({error}); it must be like {EXAMPLE}") from None
    jobs = content.get("cluster") if isinstance(content, dict) else None
    task = content.get("task") if isinstance(content, dict) else None
    if not isinstance(jobs, dict) or not isinstance(task, dict):
        missing = "task" if isinstance(jobs, dict) else "cluster"
        raise UserError(f"{VARIABLE} has no {missing!r}; it must be like {EXAMPLE}")
    if jobs.get("ps"):
        raise UserError(f"{VARIABLE}: 'ps' in its cluster: Keras 3 does not support parameter servers; leave it out")
    parts = {job: _addresses(job, jobs.get(job, [])) for job in ("chief", "worker")}
    if len(parts["chief"]) > 1:
        raise UserError(f"{VARIABLE}: {len(parts['chief'])} chiefs; there must be one, or none: then worker 0 is it")
    workers = (*parts["chief"], *parts["worker"])
    if len(set(workers)) != len(workers):
        raise UserError(f"{VARIABLE}: an address is there twice: {', '.join(workers)}; each worker needs its own")
    job, number = task.get("type"), str(task.get("index"))
    if job not in parts or not number.isdecimal() or int(number) >= len(parts[job]):
        known = ", ".join(f"{job} {i}" for job, there in parts.items() for i in range(len(there))) or "none"
        raise UserError(f"{VARIABLE}: its own task, {job} {number}, is not in its cluster; there: {known}")
    return Cluster(workers, int(number) + (len(parts["chief"]) if job == "worker" else 0))


def _addresses(job: str, given: object) -> list[str]:
    """The addresses of a job, checked."""
    if not isinstance(given, list):
        raise UserError(f"{VARIABLE}: cluster.{job} is no list of addresses; it must be like {EXAMPLE}")
    for address in given:
        host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise UserError(f"{VARIABLE}: cluster.{job}: {address!r} is no address like 'host:2222'")
    return given


def meet(cluster: Cluster, seconds: float) -> None:
    """Wait until every worker has seen every other one at the address that TensorFlow will use.

    TensorFlow itself waits an hour for a worker that never comes, and cannot be interrupted.

    Raises:
        UserError: some were not there after `seconds`, or this worker's own port is taken.
    """
    others = set(range(len(cluster.workers))) - {cluster.index}
    if not others:
        return
    host, _, port = cluster.workers[cluster.index].rpartition(":")
    # Elsewhere the name may be that of a service in front of this machine, which cannot be listened at.
    local = host if host in ("localhost", "127.0.0.1") else ""
    try:
        server = socket.create_server((local, int(port)), backlog=len(cluster.workers))
    except OSError as error:
        raise UserError(f"cannot listen at {cluster.workers[cluster.index]}: {describe_os_error(error)}") from None
    seen: set[int] = set()
    saw_us: set[int] = set()
    over = threading.Event()
    thread = threading.Thread(target=_answer, args=(server, cluster.index, saw_us, over), daemon=True)
    thread.start()
    deadline = time.monotonic() + seconds
    try:
        while not (others <= seen and others <= saw_us):
            if time.monotonic() > deadline:
                missing = ", ".join(cluster.workers[i] for i in sorted(others - (seen & saw_us)))
                raise UserError(
                    f"after {seconds:g} seconds (hardware.wait_seconds) these workers are not there: {missing};"
                    " start all of them, and see that each reaches the others"
                )
            seen |= {other for other in others - seen if _greet(cluster.workers[other], cluster.index) == other}
            time.sleep(0.1)
    finally:
        over.set()
        thread.join()  # TensorFlow listens at the same address next
        server.close()


def _answer(server: socket.socket, index: int, saw_us: set[int], over: threading.Event) -> None:
    """Answer greetings until it is over, and note whose they were."""
    server.settimeout(0.2)
    while not over.is_set():
        with suppress(OSError, ValueError), server.accept()[0] as connection:
            connection.settimeout(ANSWER_SECONDS)
            other = _number(connection.recv(64))
            connection.sendall(f"{GREETING} {index}\n".encode())
            saw_us.add(other)


def _greet(address: str, index: int) -> int | None:
    """The number of the worker that answers at an address; None where none does."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS) as connection:
            connection.sendall(f"{GREETING} {index}\n".encode())
            return _number(connection.recv(64))
    except (OSError, ValueError):
        return None


def _number(greeting: bytes) -> int:
    """The number in a greeting; ValueError where it is none."""
    text = greeting.decode()
    if not text.startswith(GREETING):
        raise ValueError(f"{text!r} is no greeting")
    return int(text.removeprefix(GREETING))
