"""The `mtl` command line. Commands import what they need when they run, so that `mtl --help` is quick."""

from __future__ import annotations

import sys

import click

from mtl import errors
from mtl.commands import (
    convert,
    export,
    log,
    promote,
    report,
    repro,
    request,
    rollback,
    run,
    runs,
    serve,
    train,
    tune,
    uri,
)

COMMANDS = (run, report, repro, request, export, convert, log, train, runs, uri, promote, rollback, serve, tune)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="multi-task-learning")
def cli() -> None:
    """Multi-task learning with independent models: one data set, several tasks, one model per task."""


for module in COMMANDS:
    cli.add_command(module.command, module.__name__.rpartition(".")[2])


def main() -> None:
    """Entry point of `mtl`: errors that a person can mend are one line, with exit status 1."""
    errors.run(lambda: sys.exit(cli()))
