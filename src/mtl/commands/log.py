"""`mtl log`: list, and log, what an outage of the MLflow server left unlogged."""

from __future__ import annotations

import time

import click

from mtl import text
from mtl.tracking.outbox import pending

HEADER = ("since", "experiment", "run", "server", "not logged")


@click.command
@click.option("--pending", "log_now", is_flag=True, help="Log it now, exactly once.")
def command(log_now: bool) -> None:
    """List what an outage of the MLflow server left unlogged, or log it (--pending).

    A stage whose server goes away writes what it would have logged, models included, into .pending. --pending can be
    stopped and started again. Exit status 1: the server is still away, and nothing is lost.
    """
    if log_now:
        for line in pending.log_all():
            click.echo(line)
        return
    runs = pending.all_pending()
    click.echo(table(runs) if runs else "nothing is pending")


def table(runs: list[pending.Pending]) -> str:
    """The table of `mtl log`."""
    rows = []
    for run in runs:
        identity = run.identity
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(identity.start_time / 1000))
        missing = ", ".join(run.missing) or "its end"
        rows.append((since, identity.experiment, (identity.run_id or "-")[:8], identity.uri, missing))
    return f"{text.aligned(HEADER, rows)}\n\n`mtl log --pending` logs it"
