"""`mtl repro`."""

from __future__ import annotations

from pathlib import Path

import click

from mtl.repro import scheduler
from mtl.repro.devices import default_jobs
from mtl.stages import checking


@click.command("repro")
@click.argument("targets", nargs=-1)
@click.option("-j", "--jobs", type=int, help="Stages at a time; one per GPU, or else per core.")
@click.option("-f", "--force", is_flag=True, help="Run every selected stage, changed or not.")
@click.option("-k", "--keep-going", is_flag=True, help="After a failure run what does not need it.")
@click.option(
    "--allow-missing", is_flag=True, help="As of `dvc repro`: missing data, such as the images, has not changed."
)
@click.pass_context
def command(context: click.Context, targets: tuple[str, ...], jobs: int | None, **flags: bool) -> None:
    """Bring TARGETS up to date as `dvc repro` does, running independent stages side by side.

    TARGETS are stages, groups of stages or dvc.yaml files; without one it is ./dvc.yaml. The whole
    output of a stage is kept in .dvc/tmp/repro/STAGE.log.
    """
    checking.check_here(flags["allow_missing"])
    jobs = default_jobs() if jobs is None else jobs
    context.exit(scheduler.repro(Path.cwd(), targets, jobs, **flags))
