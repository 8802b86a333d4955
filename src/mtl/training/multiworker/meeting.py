"""Meeting of the workers of TF_CONFIG before TensorFlow connects them."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

from mtl.errors import UserError, describe_os_error
from mtl.training.multiworker.cluster import Cluster

GREETING = "mtl worker"  # the answer of a worker that waits; TensorFlow's own server at the same address has another
ANSWER_SECONDS = 2.0  # for one greeting
LONGEST = 1024  # bytes of a greeting that are read


def meet(cluster: Cluster, seconds: float, training: str = "") -> None:
    """Wait until every worker has seen every other one at the address that TensorFlow will use.

    TensorFlow itself waits an hour for a worker that never comes, and cannot be interrupted.

    Args:
        cluster: the workers that are expected.
        seconds: the longest wait for them.
        training: what is trained, such as the task's name; it must be the same for all.

    Raises:
        UserError: some were missing after `seconds`, another is here for another training, or this worker's own port
            is taken.
    """
    others = set(range(len(cluster.workers))) - {cluster.index}
    if not others:
        return
    try:
        server = _listen(cluster.workers[cluster.index], len(cluster.workers))
    except OSError as error:
        raise UserError(f"cannot listen at {cluster.workers[cluster.index]}: {describe_os_error(error)}") from None
    seen: dict[int, str] = {}  # the training of each worker that answered us
    saw_us: dict[int, str] = {}  # and of each that greeted us
    over = threading.Event()
    mine = f"{GREETING} {cluster.index} {training}\n".encode()
    thread = threading.Thread(target=_answer, args=(server, mine, saw_us, over), daemon=True)
    thread.start()
    deadline = time.monotonic() + seconds
    try:
        while not (others <= seen.keys() and others <= saw_us.keys()):
            if time.monotonic() > deadline:
                missing = ", ".join(cluster.workers[i] for i in sorted(others - (seen.keys() & saw_us.keys())))
                raise UserError(
                    f"after {seconds:g} seconds (hardware.wait_seconds) these workers are not there: {missing};"
                    " start all of them, and see that each reaches the others"
                )
            # Greet all before raising because of one, so that the others hear from this worker before it ends.
            for other in sorted(others - seen.keys()):
                number, theirs = _greet(cluster.workers[other], mine) or (None, "")
                if number == other:
                    seen[other] = theirs
            _refuse_others(cluster, training, seen | saw_us)
            time.sleep(0.1)
        _refuse_others(cluster, training, seen | saw_us)
    finally:
        over.set()
        thread.join()  # TensorFlow listens at the same address next
        server.close()


def _listen(address: str, backlog: int) -> socket.socket:
    """Listen at an address: on loopback where it is there, else on all networks of this machine, IPv6 too."""
    host, _, port = address.rpartition(":")
    if host in ("localhost", "127.0.0.1"):
        return socket.create_server((host, int(port)), backlog=backlog)
    if host == "[::1]":
        return socket.create_server(("::1", int(port)), family=socket.AF_INET6, backlog=backlog)
    # The name may be that of a service in front of this machine, whose address cannot be bound.
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", int(port)), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True)
    return socket.create_server(("", int(port)), backlog=backlog)


def _refuse_others(cluster: Cluster, training: str, met: dict[int, str]) -> None:
    """Raise UserError where a worker that was met is here for another training."""
    for other, theirs in sorted(met.items()):
        if theirs != training:
            raise UserError(
                f"worker {other} at {cluster.workers[other]} trains {theirs or 'something else'}, this one, worker"
                f" {cluster.index}, {training or 'something else'}: start all of them for the same task"
            )


def _answer(server: socket.socket, mine: bytes, saw_us: dict[int, str], over: threading.Event) -> None:
    """Answer greetings until `over` is set, and note their senders and what those train."""
    server.settimeout(0.2)
    while not over.is_set():
        with suppress(OSError, ValueError), server.accept()[0] as connection:
            connection.settimeout(ANSWER_SECONDS)
            other, theirs = _read_greeting(connection)
            connection.sendall(mine)
            saw_us[other] = theirs


def _greet(address: str, mine: bytes) -> tuple[int, str] | None:
    """The number of the worker that answers at an address and what it trains; None where none does."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS) as connection:
            connection.sendall(mine)
            return _read_greeting(connection)
    except (OSError, ValueError):
        return None


def _read_greeting(connection: socket.socket) -> tuple[int, str]:
    """The number and the training in a greeting. Raises ValueError where it is none."""
    with connection.makefile("rb") as file:
        text = file.readline(LONGEST).decode()
    if not text.startswith(GREETING):
        raise ValueError(f"{text!r} is no greeting")
    number, _, training = text.removeprefix(GREETING).strip().partition(" ")
    return int(number), training
