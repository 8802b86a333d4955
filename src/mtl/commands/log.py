"""`mtl log`: what an outage of the MLflow server left unlogged, and how it is logged afterwards."""

from __future__ import annotations

import time

import click

from mtl import text
from mtl.tracking.outbox import pending

HEADER = ("since", "experiment", "run", "server", "not logged")


@click.command
@click.option("--pending", "now", is_flag=True, help="Log it now, once and only once.")
def command(now: bool) -> None:
    """List what an outage of the MLflow server left unlogged, or log it (--pending).

    A stage whose server goes away writes down in .pending what it would have logged, models included. --pending can be
    stopped and started again. Exit status 1: the server is still away, and nothing is lost.
    """
    if now:
        for line in pending.log_all():
            click.echo(line)
        return
    found = pending.everything()
    click.echo(table(found) if found else "nothing is pending")


def table(found: list[pending.Pending]) -> str:
    """The table of `mtl log`."""
    rows = []
    for entry in found:
        run = entry.identity
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.start_time / 1000))
        missing = ", ".join(entry.missing) or "its end"
        rows.append((since, run.experiment, (run.run_id or "-")[:8], run.uri, missing))
    return f"{text.aligned(HEADER, rows)}\n\n`mtl log --pending` logs it"
