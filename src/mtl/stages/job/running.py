"""The stages of one task in a folder of their own, and what is reported of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import chdir, contextmanager
from pathlib import Path

from mtl import files
from mtl.config import addresses, params
from mtl.data import paths, store
from mtl.errors import UserError
from mtl.stages.job import folders


def address_of(data: str | None, settings: params.Data) -> str | None:
    """The address of the images, as `folders.located` gives it; None where they are drawn or downloaded."""
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


def is_remote(address: str, settings: params.Data) -> bool:
    """Whether the images must be copied here first; the shards of TFRecords are read from where they are."""
    return "://" in address and settings.source != "tfrecord"


def refuse_without(validation: float) -> None:
    """Raise UserError where no images are held out."""
    if not validation:
        raise UserError("--report: no images are held out for validation; see data.validation in the params file")


@contextmanager
def named(file: str, options: Collection[str]) -> Iterator[None]:
    """Name the params file or the option of `mtl train` in errors about the params.yaml that it wrote from them.

    Args:
        file: the params file of the command.
        options: dotted names of the values that its options changed.
    """
    try:
        yield
    except UserError as error:
        before, colon, rest = str(error).partition(f"{params.PATH}: ")
        if before or not colon:
            raise
        key = rest.partition(": ")[0]
        raise UserError(f"--{rest}" if key in options else f"{file}: {rest}") from error


def train(
    task: str, work: Path, output: Path | None, reported: bool, source: Path, options: Collection[str]
) -> dict[str, float | str] | None:
    """Run the stages of `task` in the folder `work`; return its metrics, None where the chief has them.

    Args:
        task: its name.
        work: the folder, with params.yaml.
        output: the runs stay there where there is no MLflow server; None, as on other machines than the chief's, drops
            them.
        reported: images for validation must be held out.
        source: the params file of the command.
        options: dotted names of the values that its options changed.

    Raises:
        UserError: a stage failed in this process. SystemExit where it failed in its own, which printed the reason.
    """
    where = {"DVC_ROOT": str(output)} if output else {"MLFLOW_TRACKING_URI": f"sqlite:///{work}/mlflow.db"}
    quiet = {"GIT_PYTHON_REFRESH": "quiet"}  # MLflow asks for git, which need not be installed
    with chdir(work), folders.environment(where | quiet):
        for stage in ("load_data", "derive_labels"):  # each a process of its own, which gives its memory back
            done = subprocess.run([sys.executable, "-m", "mtl.stages", stage, str(source), *options])
            if done.returncode:
                raise SystemExit(done.returncode)
        if reported:
            refuse_without(store.read_dataset().validation)
        from mtl.stages import train as stage_of

        with named(str(source), options):
            stage_of.main(task)
        metrics = paths.METRICS / f"{task}.json"
        return files.read_json(metrics) if metrics.exists() else None


def reported(metrics: Mapping[str, float | str], epochs: int) -> str:
    """The validation metrics as lines of JSON, in the form that the package cloudml-hypertune writes."""
    common = {"timestamp": time.time(), "trial": os.environ.get("CLOUD_ML_TRIAL_ID", "0"), "global_step": str(epochs)}
    validation = [{name: str(value)} for name, value in sorted(metrics.items()) if name.startswith("val_")]
    return "".join(json.dumps(common | metric, sort_keys=True) + "\n" for metric in validation)
