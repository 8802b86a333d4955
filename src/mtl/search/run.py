"""One `mtl tune` on a study: search, then print the best parameters and the command that trains with them."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click
import optuna

from mtl import tracking
from mtl.config import editing
from mtl.config.params import PATH
from mtl.data import backend
from mtl.errors import UserError
from mtl.search import pages, report, studies
from mtl.search.display import Progress, best, status
from mtl.search.drawing import values_of
from mtl.search.opening import OpenedStudy
from mtl.search.worker import Work
from mtl.search.workers import Stop, lead

COLUMNS = 140  # of what is printed to a file


def search(opened: OpenedStudy, jobs: int | None, minutes: float | None, applied: bool, folder: Path) -> int:
    """Search until the study is over or its time is up, print the result and return the exit status.

    Raises UserError where the MLflow server does not answer, or every process fails.
    """
    from rich.console import Console

    study, searched = opened.study, opened.space
    deadline = time.monotonic() + 60 * minutes if minutes else None
    console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    definition = study.user_attrs["definition"]
    with tracking.study_run(study.study_name, study.user_attrs["id"], definition) as (run, run_id):
        folder.mkdir(parents=True, exist_ok=True)
        run.log_tags(backend.note_settings())

        def on_end(trial: optuna.trial.FrozenTrial, why: str) -> None:
            progress.ended(trial, why)
            if trial.user_attrs.get("mlflow_run"):
                run.end_other(trial.user_attrs["mlflow_run"], why)

        assignment = Work(opened.url, study.study_name, searched, run_id, folder / f"{studies.HOST}.log")
        with Progress(study, searched, deadline, console) as progress:
            stopped = lead(study, assignment, jobs or searched.tune.parallel_trials, deadline, progress.update, on_end)
        console.print(_end(opened, stopped))
        top = best(study)
        if top is not None:
            pages.write(study, searched, folder)
            run.log_metrics({f"best_{searched.tune.metric}": studies.metric(top), "epochs": report.epochs(study)})
            run.log_tags({"best_trial": str(top.number), "stopped": stopped.reason if stopped else ""})
            run.log_folder(folder)
    if top is None and stopped and stopped.status and not studies.failures(study):
        return stopped.status
    if top is None:
        raise UserError(f"study {study.study_name!r}: no trial was trained to its end; the reasons are above")
    failed = len(studies.failures(study)) > searched.tune.max_failed_trials
    exit_status = stopped.status if stopped else int(failed)
    conclude(opened, top, applied and not exit_status, folder)
    return exit_status


def _end(opened: OpenedStudy, stopped: Stop | None) -> str:
    """The end of a study, in one line."""
    failed, why = len(studies.failures(opened.study)), ""
    if stopped:
        why = f" ({stopped.reason}; the same command goes on)"
    elif failed > opened.space.tune.max_failed_trials:
        why = f" ({failed} failed, more than tune.max_failed_trials)"
    return status(opened.study, opened.space, None) + why


def conclude(opened: OpenedStudy, top: optuna.trial.FrozenTrial, applied: bool, folder: Path) -> None:
    """Print the best parameters, remarks and the command that trains with them, and write them if `applied`."""
    from rich.console import Console

    study, searched = opened.study, opened.space
    # Rich takes 80 columns where it has no terminal, and would cut the table.
    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else COLUMNS)
    values = values_of(top, searched.parameters)
    click.echo(
        f"\nstudy {study.study_name}: best {searched.tune.metric} {studies.metric(top):.4f}, trial {top.number}\n"
    )
    console.print(report.table(study, searched, top))
    click.echo("\n" + "\n".join(report.words(study, searched, top)))
    click.echo(f"\npages and trials: {folder}/; the trial again:\n  {report.command(searched, values)}")
    shared = [name for name, task in searched.settings.tasks.items() if task.recipe in searched.recipes]
    if others := [name for name in shared if name not in searched.tasks]:
        click.echo(f"The recipe is that of {', '.join(others)} too: what changes it changes them all.")
    if applied:
        editing.set_params(values)
        click.echo(f"{PATH}: the best parameters are written; epochs stay as they were. `dvc repro` trains with them.")
    else:
        click.echo("--apply writes the best parameters into params.yaml.")
