"""Run the independent stages of a DVC pipeline side by side, with DVC's own locks and results.

Each stage is one `dvc --wait-for-lock repro --single-item STAGE`, started once everything upstream
of it is done. DVC decides what has changed, runs the stage and writes `dvc.lock`; this module only
decides when. It knows nothing about what the stages do.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

import click

if TYPE_CHECKING:
    import psutil
    from rich.console import Console
    from rich.table import Table

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE_SECONDS = 10.0
POLL_SECONDS = 0.2
LOG_LINES = 20


class _Job(NamedTuple):
    process: subprocess.Popen[bytes]
    log: Path
    started: float
    slot: int


def gpu_devices(environment: Mapping[str, str]) -> list[str]:
    """List the GPUs `environment` leaves to this process, as CUDA_VISIBLE_DEVICES names them.

    Without that variable it is what nvidia-smi lists; an empty list where there is no GPU.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        if shutil.which("nvidia-smi") is None:
            return []
        query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True, check=False)
        visible = ",".join(answer.stdout.split()) if answer.returncode == 0 else ""
    return [device.strip() for device in visible.split(",") if device.strip() not in ("", "-1")]


def device_environment(slot: int, devices: Sequence[str]) -> dict[str, str]:
    """Return the variables that give the job in `slot` (from 0) one of `devices`, shared or not."""
    if not devices:
        return {}
    # Without growth the first TensorFlow job on a shared device takes all of its memory.
    device = devices[slot % len(devices)]
    return {"CUDA_VISIBLE_DEVICES": device, "TF_FORCE_GPU_ALLOW_GROWTH": "true"}


def default_jobs() -> int:
    """Return how many jobs to run where nobody said: one per GPU, or else one per usable core."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return len(gpu_devices(os.environ)) or usable or 1


def _plan(targets: Sequence[str], force: bool, done: set[str]) -> dict[str, set[str]]:
    """Ask DVC what is to run, but for `done`: each stage, in its order, with what it waits for."""
    import networkx as nx
    from dvc.repo import Repo

    logging.disable(logging.WARNING)  # a dry run announces stages as if it ran them
    try:
        # Busy at first is an error, as for `dvc repro`; after hours of training it is worth a wait.
        with Repo(_wait_for_lock=bool(done)) as repo:
            # Unforced, a dry run fails on the first output that is not there yet.
            selected = repo.reproduce(list(targets), dry=True, force=True)
            with repo.lock:
                todo = {stage.addressing for stage in selected if force or stage.changed()} - done
            graph = nx.relabel_nodes(repo.index.graph, lambda stage: stage.addressing)
    finally:
        logging.disable(logging.NOTSET)
    # An edge leads from a stage to what it needs: networkx's ancestors are what is downstream.
    affected = todo.union(*(nx.ancestors(graph, name) for name in todo)) - done
    order = [stage.addressing for stage in selected if stage.addressing in affected]
    return {name: nx.descendants(graph, name).intersection(order) for name in order}


def _tail(log: Path, count: int) -> list[str]:
    """Return the last `count` lines of `log` as a terminal would show them, without blank ones."""
    from rich.text import Text

    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 16_384))
        text = file.read().decode(errors="replace")
    # A progress bar rewrites its line with \r: only the last state of it counts.
    lines = (line.rstrip().rpartition("\r")[2] for line in text.split("\n"))
    return [Text.from_ansi(line).plain for line in lines if line][-count:]


def _progress(running: Mapping[str, _Job], width: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    # Not the whole width: the ^C that a terminal echoes would begin a line that nobody erases.
    table = Table.grid("", "", "", padding=(0, 2, 0, 0))
    table.width = width - 4
    for column in table.columns:
        column.no_wrap = True
    table.columns[2].ratio = 1
    for name, job in running.items():
        seconds = f"{time.monotonic() - job.started:.0f} s"
        table.add_row(Text(name), seconds, Text("".join(_tail(job.log, 1))))
    return table


def _start(name: str, slot: int, *, force: bool, logs: Path, devices: Sequence[str]) -> _Job:
    log = logs / f"{quote(name, safe='@')}.log"
    # -P: a file of the project such as types.py must not shadow what DVC imports.
    command = [sys.executable, "-P", "-m", "dvc", "--wait-for-lock", "repro", "--single-item"]
    environment = {"DVC_NO_ANALYTICS": "1", "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *(["--force"] if force else []), name],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | environment | device_environment(slot, devices),
            start_new_session=True,
        )
    return _Job(process, log, time.monotonic(), slot)


def _session(leader: int) -> list[psutil.Process]:
    """Return the live processes of the session that `leader` began, the leader itself first."""
    import psutil

    found = []
    for process in psutil.process_iter(["status"]):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == leader and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
    return sorted(found, key=lambda process: process.pid != leader)


def _stop(leaders: Sequence[subprocess.Popen[bytes]]) -> None:
    """End every process of the sessions of `leaders`: SIGTERM, after a grace period SIGKILL."""
    import psutil

    told: set[psutil.Process] = set()
    deadline = time.monotonic() + GRACE_SECONDS
    while alive := {leader.pid: found for leader in leaders if (found := _session(leader.pid))}:
        late = time.monotonic() > deadline
        for leader, processes in alive.items():
            # A DVC without a command may be writing dvc.lock: it is given the time to finish. One
            # with a command goes first, or it could take the end of the command for a success.
            saving = [process.pid for process in processes] == [leader]
            for process in processes if late or not saving else ():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if late:
                        process.kill()
                    elif process not in told:
                        process.terminate()
                        told.add(process)
        time.sleep(0.05)
    for process in leaders:
        process.wait()


@contextlib.contextmanager
def _signals(handler: Callable[[int, object], object]) -> Iterator[None]:
    """Let `handler` answer the signals that end a program, unless it was started to ignore them."""
    heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _succeeded(name: str, job: _Job, console: Console) -> bool:
    """Say how a stage ended, with the end of its log where it failed."""
    seconds = f"{time.monotonic() - job.started:.0f} s"
    if job.process.returncode == 0:
        console.print(f"done    {name}  {seconds}")
        return True
    where = f"its output is in {os.path.relpath(job.log)}, and ends:"
    console.print(f"mtl repro: stage '{name}' failed after {seconds}; {where}")
    console.print("\n".join(f"    {line}" for line in _tail(job.log, LOG_LINES)))
    return False


def _run(
    waiting: dict[str, set[str]],
    jobs: int,
    start: Callable[[str, int], _Job],
    keep_going: bool,
    console: Console,
) -> int:
    """Run the stages of `waiting`, each after those it names; return 0, 1 or 128 + a signal."""
    from rich.live import Live

    running: dict[str, _Job] = {}
    failed: list[str] = []
    signals: list[int] = []
    live = Live(console=console, auto_refresh=False, transient=True)
    # The handler only takes a note: an exception from it could lose a process just started.
    with _signals(lambda number, _: signals.append(number)), live:
        try:
            while not signals:
                unfinished = {*waiting, *running, *failed}
                ready = [name for name, upstream in waiting.items() if not upstream & unfinished]
                for name in ready[: jobs - len(running)] if keep_going or not failed else ():
                    used = {job.slot for job in running.values()}
                    slot = next(slot for slot in itertools.count() if slot not in used)
                    running[name] = start(name, slot)
                    del waiting[name]
                    if not console.is_terminal:
                        console.print(f"start   {name}")
                if not running:
                    break
                if console.is_terminal:
                    live.update(_progress(running, console.width), refresh=True)
                time.sleep(POLL_SECONDS)
                for name in [n for n, job in running.items() if job.process.poll() is not None]:
                    if not _succeeded(name, running.pop(name), console):
                        failed.append(name)
        finally:
            _stop([job.process for job in running.values()])
    if signals:
        cause = signal.Signals(signals[0]).name
        console.print(f"mtl repro: {cause}: stopped {', '.join(running) or 'between stages'}")
        return 128 + signals[0]
    if failed:
        left = f"; not started: {', '.join(waiting)}" if waiting else ""
        console.print(f"mtl repro: failed: {', '.join(failed)}{left}")
    return 1 if failed else 0


def _repro(targets: Sequence[str], jobs: int, force: bool, keep_going: bool, logs: Path) -> int:
    from rich.console import Console

    console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    logs.mkdir(exist_ok=True)
    devices = gpu_devices(os.environ)
    began = time.monotonic()
    done: set[str] = set()
    # Asking DVC again says what a last `dvc repro` would, but runs no always_changed stage twice.
    while plan := _plan(targets, force, done):
        done.update(plan)
        start = functools.partial(_start, force=force, logs=logs, devices=devices)
        if status := _run(plan, jobs, start, keep_going, console):
            return status
        force = False
    seconds = f"{time.monotonic() - began:.0f} s"
    console.print(f"stages run: {len(done)} ({seconds})" if done else "Everything is up to date.")
    return 0


def _refuse(message: str) -> int:
    click.echo(f"mtl repro: {' '.join(message.split())}", err=True)
    return 1


def repro(
    root: Path,
    targets: Sequence[str] = (),
    jobs: int = 1,
    force: bool = False,
    keep_going: bool = False,
) -> int:
    """Bring `targets` up to date like `dvc repro`, running independent stages at the same time.

    Progress and errors go to stderr, the whole output of a stage to .dvc/tmp/repro/STAGE.log.

    Args:
        root: the folder that targets are relative to, anywhere in a DVC repository.
        targets: what `dvc repro` takes: stages, groups, dvc.yaml files; none: root's dvc.yaml.
        jobs: how many stages may run at a time.
        force: run every selected stage, changed or not.
        keep_going: after a failure go on with the stages that do not need the failed one.

    Returns:
        0; 1 after an error or a failed stage (those that were running finish first and are kept);
        128 + the number of the SIGINT, SIGTERM or SIGHUP that stopped it.

    Raises:
        SystemExit: one of those signals came while DVC was being asked what is to run.
    """
    if jobs < 1:
        return _refuse(f"--jobs must be 1 or more, not {jobs}")
    with _signals(lambda number, _: sys.exit(128 + number)):
        from dvc.exceptions import DvcException
        from dvc.repo import Repo
        from filelock import FileLock, Timeout

        try:
            with contextlib.chdir(root):
                tmp = Path(Repo.find_root()) / Repo.DVC_DIR / "tmp"
                tmp.mkdir(exist_ok=True)
                holder = tmp / "mtl-repro.pid"
                with FileLock(tmp / "mtl-repro.lock", timeout=0):
                    holder.write_text(f"process {os.getpid()}")
                    return _repro(targets, jobs, force, keep_going, tmp / "repro")
        except Timeout:
            who = holder.read_text() if holder.exists() else "another process"
            return _refuse(f"already running in this repository ({who})")
        except (DvcException, OSError) as error:
            return _refuse(f"{error}: {error.__cause__}" if error.__cause__ else str(error))


@click.command("repro")
@click.argument("targets", nargs=-1)
@click.option("-j", "--jobs", type=int, help="Stages at a time; one per GPU, or else per core.")
@click.option("-f", "--force", is_flag=True, help="Run every selected stage, changed or not.")
@click.option("-k", "--keep-going", is_flag=True, help="After a failure run what does not need it.")
@click.pass_context
def command(context: click.Context, targets: tuple[str, ...], jobs: int | None, **flags: bool):
    """Bring TARGETS up to date as `dvc repro` does, running independent stages side by side.

    TARGETS are stages, groups of stages or dvc.yaml files; without one it is ./dvc.yaml. The whole
    output of a stage is kept in .dvc/tmp/repro/STAGE.log.
    """
    jobs = default_jobs() if jobs is None else jobs
    context.exit(repro(Path.cwd(), targets, jobs, **flags))
