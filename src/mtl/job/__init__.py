"""`mtl train`: one task, from a params file and the images' address, without a clone, DVC or git: a cluster's job."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import chdir
from pathlib import Path

import click

from mtl import addresses, cluster, errors, params, store
from mtl.errors import UserError
from mtl.job import folders, values

STAGES = Path(__file__).parents[1] / "stages"  # in the wheel; in a clone the scripts are beside the library


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
    address = _address(data, settings.data)
    changed |= {"data.path": address} if address else {}
    if report and settings.data.source != "tfrecord":
        _refuse_without(settings.data.validation)
    chief = cluster.of(settings.hardware).chief
    job = {"task": task, "data": address, "params": json.loads(settings.model_dump_json())}
    sys.path.append(str(Path.cwd()))  # a network of one's own is importable from here
    with folders.working(output.absolute(), job) if chief else folders.passing() as work:
        local = folders.fetched(address, work / "images") if _is_remote(address, settings.data) else None
        mine = changed | ({"data.path": str(local)} if local else {})
        folders.write_params(source, mine, task, work / params.PATH)
        given = {errors.GIVEN: json.dumps({"file": str(source), "options": sorted(changed)})}
        with folders.environment(given):
            metrics = _train(task, work, output.absolute() if chief else None, reported=report is not None)
        if metrics is None:
            return
        folders.write_params(source, changed, task, output.absolute() / params.PATH)
        folders.publish(work, output.absolute(), task)
    if report:
        store.write_bytes(report, reported(metrics, settings.recipe(task).epochs).encode())
    click.echo(f"{output / store.model_path(task)}")
    for name, value in sorted(metrics.items()):
        click.echo(f"{name}={value:.6g}")


def _address(data: str | None, settings: params.Data) -> str | None:
    """Where the images are, as `folders.located` says it; None where they are drawn or downloaded."""
    if settings.source == "generated":
        if data:
            raise UserError(
                f"--data {addresses.shown(data)}: data.source is 'generated', which draws its images;"
                " set --data.source=folder"
            )
        return None
    if data is None and settings.source == "cifar10" and not Path(settings.path).exists():
        return None
    return folders.located(data or settings.path)


def _is_remote(address: str | None, settings: params.Data) -> bool:
    """Whether the images must be copied here first; the shards of TFRecords are read from where they are."""
    return address is not None and "://" in address and settings.source != "tfrecord"


def _refuse_without(validation: int) -> None:
    if not validation:
        raise UserError("--report: no images are held out for validation; see data.validation in the params file")


def _train(task: str, work: Path, output: Path | None, reported: bool) -> dict[str, float] | None:
    """Run the stages of `task` in the folder `work`; return its metrics, None where the chief has them.

    Where there is no MLflow server, the runs stay in `output`; without one, as on other machines than the chief's,
    nobody gets them.
    """
    where = {"DVC_ROOT": str(output)} if output else {"MLFLOW_TRACKING_URI": f"sqlite:///{work}/mlflow.db"}
    quiet = {"GIT_PYTHON_REFRESH": "quiet"}  # MLflow asks for git, which need not be installed
    with chdir(work), folders.environment(where | quiet):
        for stage in ("load_data", "derive_labels"):  # each a process of its own, which gives its memory back
            done = subprocess.run([sys.executable, script(stage)])
            if done.returncode:
                raise SystemExit(done.returncode)
        if reported:
            _refuse_without(store.read_dataset().validation)
        try:
            function(script("train"))(task)
        except UserError as error:
            raise UserError(errors.as_given(str(error))) from error
        metrics = store.METRICS / f"{task}.json"
        return store.read_json(metrics) if metrics.exists() else None


def script(stage: str) -> Path:
    """The script of a stage."""
    return (STAGES if STAGES.is_dir() else STAGES.parents[1]) / f"{stage}.py"


def function(path: Path) -> Callable[..., None]:
    """The function `main` of a script."""
    spec = importlib.util.spec_from_file_location(f"mtl_stage_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def reported(metrics: Mapping[str, float], epochs: int) -> str:
    """The validation metrics as lines of JSON, in the form that the package cloudml-hypertune writes."""
    common = {"timestamp": time.time(), "trial": os.environ.get("CLOUD_ML_TRIAL_ID", "0"), "global_step": str(epochs)}
    found = [{name: str(value)} for name, value in sorted(metrics.items()) if name.startswith("val_")]
    return "".join(json.dumps(common | metric, sort_keys=True) + "\n" for metric in found)
