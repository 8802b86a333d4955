"""The `mtl` command line. Commands import what they need when they run, so that `mtl --help` is quick."""

from __future__ import annotations

import sys
from typing import Any

import click

from mtl import errors, records, release, report, repro, search
from mtl.commands import log, run, runs
from mtl.commands import serve as serving
from mtl.serving import export, request
from mtl.stages import checking, job


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="multi-task-learning")
def cli() -> None:
    """Multi-task learning with independent models: one data set, several tasks, one model per task."""


@click.command(params=repro.command.params, help=repro.command.help)
@click.pass_context
def checked_repro(context: click.Context, **options: Any) -> None:
    """`mtl repro`, which knows nothing of this project, after a look at its parameters."""
    checking.check_here(options["allow_missing"])
    context.forward(repro.command)


cli.add_command(run.command, "run")
cli.add_command(report.command, "report")
cli.add_command(checked_repro, "repro")
cli.add_command(request.command, "request")
cli.add_command(export.command, "export")
cli.add_command(records.command, "convert")
cli.add_command(log.command, "log")
cli.add_command(job.command, "train")
cli.add_command(runs.runs)
cli.add_command(runs.uri)
cli.add_command(release.promote, "promote")
cli.add_command(release.rollback, "rollback")
cli.add_command(serving.command, "serve")
cli.add_command(search.command, "tune")


def main() -> None:
    """Entry point of `mtl`: errors that a person can mend are one line, with exit status 1."""
    errors.run(lambda: sys.exit(cli()))
