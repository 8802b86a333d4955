"""`mtl train`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from mtl import files
from mtl.config import params
from mtl.data import paths
from mtl.stages.job import folders, running, values
from mtl.training.multiworker import cluster


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("task")
@click.option("--params", "source", type=click.Path(path_type=Path), required=True, help="Like params.yaml.")
@click.option(
    "--data", metavar="URI", help="Images: a path or a URI that fsspec opens. Default: data.path in the params file."
)
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True, help="Folder for the results.")
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    help="Also write the validation metrics to this file, as Vertex AI's search reads them.",
)
@click.argument("changes", nargs=-1, type=click.UNPROCESSED, metavar="[--NAME=VALUE]...")
def command(
    task: str, source: Path, data: str | None, output: Path, report: Path | None, changes: tuple[str, ...]
) -> None:
    """Train TASK and write its model, metrics and history to a folder; no clone, DVC or git is needed.

    --NAME=VALUE changes a value of the params file, by its dotted name there or in the task's recipe:
    --recipes.compact.epochs=2, --optimizer.learning_rate=0.1, --hardware.strategy=mirrored. The last lines printed are
    the metrics, like val_acc=0.8845. A training that was killed goes on when the same command is given again. Runs
    are logged to $MLFLOW_TRACKING_URI, else to mlflow.db in the output folder.
    """
    if task.startswith("-"):
        raise click.UsageError(f"give TASK first, then the options ({task!r})")
    settings, changed = values.change(params.read(source), task, values.parse(changes), source)
    address = running.address_of(data, settings.data)
    changed |= {"data.path": address} if address else {}
    if report and settings.data.source != "tfrecord":
        running.refuse_without(settings.data.validation)
    chief = cluster.of(settings.hardware).chief
    job = {"task": task, "data": address, "params": json.loads(settings.model_dump_json())}
    sys.path.append(str(Path.cwd()))  # a network of one's own is importable from here
    with folders.working(output.absolute(), job) if chief else folders.passing() as work:
        remote = address if address is not None and running.is_remote(address, settings.data) else None
        local = folders.fetched(remote, work / "images") if remote is not None else None
        mine = changed | ({"data.path": str(local)} if local else {})
        mine["data.shifted"] = params.SHIFTED  # nothing is there: a training does not read it
        folders.write_params(source, mine, task, work / params.PATH)
        kept = output.absolute() if chief else None
        metrics = running.train(task, work, kept, report is not None, source, sorted(changed))
        if metrics is None:
            return
        folders.write_params(source, changed, task, output.absolute() / params.PATH)
        folders.publish(work, output.absolute(), task)
    if report:
        files.write_bytes(report, running.reported(metrics, settings.recipe(task).epochs).encode())
    click.echo(f"{output / paths.model_path(task)}")
    for name, value in sorted(metrics.items()):
        click.echo(f"{name}={value}" if isinstance(value, str) else f"{name}={value:.6g}")
