"""`mtl tune`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command
@click.argument("task", required=False)
@click.option("--joint", is_flag=True, help="Judge by the mean over the models of all tasks.")
@click.option("--jobs", "-j", type=click.IntRange(min=1), help="Trials at once. Default: tune.parallel_trials.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="MINUTES", help="Stop after this long.")
@click.option(
    "--storage",
    envvar="OPTUNA_STORAGE",
    default="sqlite:///tune.db",
    show_default=True,
    help="Any storage of Optuna's; with a shared one, machines join a study with the same command.",
)
@click.option("--name", help="Of the study. Default: the task's latest.")
@click.option("--continue", "old", metavar="STUDY", help="Start a new study from what STUDY learned.")
@click.option("--apply", "applied", is_flag=True, help="Write the best parameters into params.yaml.")
def command(
    task: str | None,
    joint: bool,
    jobs: int | None,
    timeout: float | None,
    storage: str,
    name: str | None,
    old: str | None,
    applied: bool,
) -> None:
    """Search the parameters that params.yaml declares under `tune:` for the best model of TASK.

    Trials are trained on the training images and judged on the validation images; the test images are not opened. A
    study that was stopped, however, goes on by the same command. Its pages are in tune/STUDY, its trials in the MLflow
    experiment `tune`.
    """
    if (task is None) != joint:
        raise click.UsageError("give one TASK, or --joint for all of them")
    from mtl.search import opening, run
    from mtl.search.storage import translating_errors

    settings = opening.checked_settings(task)
    tasks, stem = (list(settings.tasks), "joint") if task is None else ([task], task)
    with translating_errors(storage):
        opened = opening.open_study(settings, tasks, storage, stem, name, old)
        status = run.search(opened, jobs, timeout, applied, Path("tune") / opened.study.study_name)
    raise SystemExit(status)
