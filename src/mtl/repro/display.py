"""The display of the running stages."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mtl.repro.processes import Job

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

LOG_LINES = 20


def tail(log: Path, count: int) -> list[str]:
    """Return the last `count` lines of `log` as a terminal would show them, without blank ones."""
    from rich.text import Text

    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 16_384))
        text = file.read().decode(errors="replace")
    # A progress bar rewrites its line with \r: only the last state of it counts.
    lines = (line.rstrip().rpartition("\r")[2] for line in text.split("\n"))
    return [Text.from_ansi(line).plain for line in lines if line][-count:]


def progress(running: Mapping[str, Job], width: int) -> Table:
    """Return a row per running stage: its name, its seconds, the last line of its output."""
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
        table.add_row(Text(name), seconds, Text("".join(tail(job.log, 1))))
    return table


def succeeded(name: str, job: Job, console: Console) -> bool:
    """Print the end of a stage, with the end of its log where it failed; return whether it succeeded."""
    seconds = f"{time.monotonic() - job.started:.0f} s"
    if job.process.returncode == 0:
        console.print(f"done    {name}  {seconds}")
        for line in tail(job.log, LOG_LINES):
            if line.startswith("MLflow: not logged"):
                console.print(f"    {line}")
        return True
    where = f"its output is in {os.path.relpath(job.log)}, and ends:"
    console.print(f"mtl repro: stage '{name}' failed after {seconds}; {where}")
    console.print("\n".join(f"    {line}" for line in tail(job.log, LOG_LINES)))
    return False
