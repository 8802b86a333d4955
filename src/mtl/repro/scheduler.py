"""Run the independent stages of a DVC pipeline side by side, with DVC's own locks and results.

Each stage is one `dvc --wait-for-lock repro --single-item STAGE`, started once everything upstream
of it is done. DVC decides what has changed, runs the stage and writes `dvc.lock`; this module only
decides when. It knows nothing about what the stages do.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mtl.errors import UserError
from mtl.repro.devices import gpu_devices
from mtl.repro.display import progress, succeeded
from mtl.repro.planning import plan, refuse_broken_lock
from mtl.repro.processes import Job, guarded, on_signals, start, stop

if TYPE_CHECKING:
    from rich.console import Console

POLL_SECONDS = 0.2


def _run(
    waiting: dict[str, set[str]],
    jobs: int,
    begin: Callable[[str, int], Job],
    keep_going: bool,
    console: Console,
) -> int:
    """Run the stages of `waiting`, each after those it names; return 0, 1 or 128 + a signal."""
    from rich.live import Live

    running: dict[str, Job] = {}
    failed: list[str] = []
    signals: list[int] = []
    live = Live(console=console, auto_refresh=False, transient=True)
    # The handler only takes a note: an exception from it could lose a process just started.
    with on_signals(lambda number, _: signals.append(number)), live:
        try:
            while not signals:
                unfinished = {*waiting, *running, *failed}
                ready = [name for name, upstream in waiting.items() if not upstream & unfinished]
                for name in ready[: jobs - len(running)] if keep_going or not failed else ():
                    used = {job.slot for job in running.values()}
                    slot = next(slot for slot in itertools.count() if slot not in used)
                    running[name] = begin(name, slot)
                    del waiting[name]
                    if not console.is_terminal:
                        console.print(f"start   {name}")
                if not running:
                    break
                if console.is_terminal:
                    live.update(progress(running, console.width), refresh=True)
                time.sleep(POLL_SECONDS)
                for name in [n for n, job in running.items() if job.process.poll() is not None]:
                    if not succeeded(name, running.pop(name), console):
                        failed.append(name)
        finally:
            stop([job.process for job in running.values()])
    if signals:
        cause = signal.Signals(signals[0]).name
        console.print(f"mtl repro: {cause}: stopped {', '.join(running) or 'between stages'}")
        return 128 + signals[0]
    if failed:
        left = f"; not started: {', '.join(waiting)}" if waiting else ""
        console.print(f"mtl repro: failed: {', '.join(failed)}{left}")
    return 1 if failed else 0


def _repro(targets: Sequence[str], jobs: int, force: bool, keep_going: bool, allow_missing: bool, logs: Path) -> int:
    from rich.console import Console

    console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    logs.mkdir(exist_ok=True)
    devices = gpu_devices(os.environ)
    began = time.monotonic()
    done: set[str] = set()
    # Asking DVC again says what a last `dvc repro` would, but runs no always_changed stage twice.
    while stages := plan(targets, force, done, allow_missing):
        done.update(stages)
        flags = ["--force"] * force + ["--allow-missing"] * allow_missing
        with guarded() as mark:
            begin = functools.partial(start, flags=flags, logs=logs, devices=devices, mark=mark)
            status = _run(stages, jobs, begin, keep_going, console)
        if status:
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
    allow_missing: bool = False,
) -> int:
    """Bring `targets` up to date like `dvc repro`, running independent stages at the same time.

    Progress and errors go to stderr, the whole output of a stage to .dvc/tmp/repro/STAGE.log.

    Args:
        root: the folder that targets are relative to, anywhere in a DVC repository.
        targets: what `dvc repro` takes: stages, groups, dvc.yaml files; none: root's dvc.yaml.
        jobs: how many stages may run at a time.
        force: run every selected stage, changed or not.
        keep_going: after a failure go on with the stages that do not need the failed one.
        allow_missing: what is not here but in dvc.lock has not changed.

    Returns:
        0; 1 after an error or a failed stage (those that were running finish first and are kept);
        128 + the number of the SIGINT, SIGTERM or SIGHUP that stopped it.

    Raises:
        SystemExit: one of those signals came while DVC was being asked what is to run.
    """
    if jobs < 1:
        return _refuse(f"--jobs must be 1 or more, not {jobs}")
    with on_signals(lambda number, _: sys.exit(128 + number)):
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
                    return _repro(targets, jobs, force, keep_going, allow_missing, tmp / "repro")
        except Timeout:
            who = holder.read_text() if holder.exists() else "another process"
            return _refuse(f"already running in this repository ({who})")
        except (DvcException, OSError) as error:
            if named := re.search(r"'([^']*dvc\.lock)'", str(error)):
                try:
                    with contextlib.chdir(root):
                        refuse_broken_lock(Path(named[1]))
                except UserError as broken:
                    return _refuse(str(broken))
            return _refuse(f"{error}: {error.__cause__}" if error.__cause__ else str(error))
