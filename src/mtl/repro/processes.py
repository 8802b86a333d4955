"""Stages as processes: each in a session of its own, so that it can be ended with all that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from mtl.repro.devices import device_environment

if TYPE_CHECKING:
    import psutil

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE_SECONDS = 10.0
MARK = "MTL_REPRO"  # in the environment of every DVC that is started: by whom


class Job(NamedTuple):
    """A running stage: its DVC process, the log of all its output, its start and its slot among the jobs."""

    process: subprocess.Popen[bytes]
    log: Path
    started: float
    slot: int


def start(name: str, slot: int, *, flags: Sequence[str], logs: Path, devices: Sequence[str], mark: str) -> Job:
    """Start DVC on one stage, in a session of its own, with its output going to a log file in `logs`.

    `mark` is that of `guarded`.
    """
    log = logs / f"{quote(name, safe='@')}.log"
    # -P: a file of the project such as types.py must not shadow what DVC imports.
    command = [sys.executable, "-P", "-m", "dvc", "--wait-for-lock", "repro", "--single-item"]
    # A stage that calls `python` means the one that has the project's packages, activated or not.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    environment = {"DVC_NO_ANALYTICS": "1", "PYTHONUNBUFFERED": "1", "PATH": path, MARK: mark}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *flags, name],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | environment | device_environment(slot, devices),
            start_new_session=True,
        )
    return Job(process, log, time.monotonic(), slot)


def _session(leader: int) -> list[psutil.Process]:
    """Return the live processes of the session that `leader` began, the leader itself first."""
    import psutil

    members = []
    for process in psutil.process_iter(["status"]):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == leader and process.info["status"] != psutil.STATUS_ZOMBIE:
                members.append(process)
    return sorted(members, key=lambda process: process.pid != leader)


@contextlib.contextmanager
def guarded() -> Iterator[str]:
    """Yield a mark: what is started with it ends with this process, also where SIGKILL leaves that no last word."""
    mark = uuid.uuid4().hex
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    guard = subprocess.Popen(
        [sys.executable, "-P", "-m", "mtl.repro.guard", mark],
        stdin=subprocess.PIPE,  # whose other end this process alone holds
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": path},
        start_new_session=True,  # not reached by a signal to all of this process' group
    )
    try:
        yield mark
    finally:
        guard.kill()
        guard.communicate()


def marked(mark: str) -> list[int]:
    """The sessions that were begun with `mark` and whose leaders are alive."""
    import psutil

    leaders = []
    for process in psutil.process_iter(["environ"]):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if (process.info["environ"] or {}).get(MARK) == mark and os.getsid(process.pid) == process.pid:
                leaders.append(process.pid)
    return leaders


def stop(leaders: Sequence[subprocess.Popen[bytes]]) -> None:
    """End every process of the sessions of `leaders`: SIGTERM, after a grace period SIGKILL."""
    end([leader.pid for leader in leaders])
    for process in leaders:
        process.wait()


def end(leaders: Sequence[int]) -> None:
    """End every process of the sessions that `leaders` began: SIGTERM, after a grace period SIGKILL."""
    import psutil

    terminated: set[psutil.Process] = set()
    deadline = time.monotonic() + GRACE_SECONDS
    while alive := {leader: members for leader in leaders if (members := _session(leader))}:
        late = time.monotonic() > deadline
        for leader, processes in alive.items():
            # A DVC without a command may be writing dvc.lock: it is given the time to finish. One
            # with a command goes first, or it could take the end of the command for a success.
            saving = [process.pid for process in processes] == [leader]
            for process in processes if late or not saving else ():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if late:
                        process.kill()
                    elif process not in terminated:
                        process.terminate()
                        terminated.add(process)
        time.sleep(0.05)


@contextlib.contextmanager
def on_signals(handler: Callable[[int, object], object]) -> Iterator[None]:
    """Let `handler` answer the signals that end a program, unless it was started to ignore them."""
    handled = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in handled}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
