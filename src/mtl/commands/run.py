"""`make run`: decide where the images come from, run the DAG, show what came out."""

from __future__ import annotations

import time
from pathlib import Path

import click

from mtl.config import params
from mtl.report.summary import summary
from mtl.repro import scheduler
from mtl.repro.devices import default_jobs
from mtl.stages import checking, placing

GENERATED = "This run uses GENERATED images (drawn by code): {why}."
WAY_BACK = (
    "These are results on GENERATED images. For real ones: `git restore params.yaml dvc.lock metrics`, then\n"
    "`CIFAR10_PATH=<cifar-10-python.tar.gz, or a folder or tar of <split>/<class>/*> make run`."
)


@click.command
@click.option("--jobs", "-j", type=click.IntRange(min=1), help="Stages at once. Default: what the cores allow.")
def command(jobs: int | None) -> None:
    """Run the whole DAG on the images that can be had here, and show the results (`make run`).

    A copy of CIFAR-10 is taken from $CIFAR10_PATH or data.path, else from Keras' cache or the network, into data.path,
    and put under DVC; where none can be had, data.source in params.yaml is set to `generated`, which the first and the
    last line say. What was pulled without its images stays as it is.
    """
    started = time.perf_counter()
    asked = params.read()
    params.refuse_uri(asked.data)
    placing.choose_images(asked)
    settings = params.read()
    if settings.data.source == "generated":
        nowhere = f"CIFAR-10 is neither in {settings.data.path} nor to be downloaded from here"
        why = "params.yaml says so" if asked.data.source == "generated" else nowhere
        click.secho(GENERATED.format(why=why), fg="yellow", bold=True)
    settings = checking.check()
    jobs = jobs or max(1, default_jobs() // settings.hardware.threads)
    status = scheduler.repro(Path.cwd(), [], jobs, allow_missing=not Path(settings.data.path).exists())
    if status:
        raise SystemExit(status)
    click.echo("\n" + summary(settings, time.perf_counter() - started))
    if settings.data.source == "generated":
        click.secho("\n" + WAY_BACK, fg="yellow", bold=True)
