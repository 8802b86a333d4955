"""The stages of one task in a folder of their own, and what is reported of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path

from mtl import errors, files
from mtl.config import addresses, params
from mtl.data import paths, store
from mtl.errors import UserError
from mtl.stages.job import folders


def address_of(data: str | None, settings: params.Data) -> str | None:
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


def is_remote(address: str, settings: params.Data) -> bool:
    """Whether the images must be copied here first; the shards of TFRecords are read from where they are."""
    return "://" in address and settings.source != "tfrecord"


def refuse_without(validation: float) -> None:
    """Raise UserError where no images are held out."""
    if not validation:
        raise UserError("--report: no images are held out for validation; see data.validation in the params file")


def train(task: str, work: Path, output: Path | None, reported: bool) -> dict[str, float | str] | None:
    """Run the stages of `task` in the folder `work`; return its metrics, None where the chief has them.

    Where there is no MLflow server, the runs stay in `output`; without one, as on other machines than the chief's,
    nobody gets them.
    """
    where = {"DVC_ROOT": str(output)} if output else {"MLFLOW_TRACKING_URI": f"sqlite:///{work}/mlflow.db"}
    quiet = {"GIT_PYTHON_REFRESH": "quiet"}  # MLflow asks for git, which need not be installed
    with chdir(work), folders.environment(where | quiet):
        for stage in ("load_data", "derive_labels"):  # each a process of its own, which gives its memory back
            done = subprocess.run([sys.executable, "-m", "mtl.stages", stage])
            if done.returncode:
                raise SystemExit(done.returncode)
        if reported:
            refuse_without(store.read_dataset().validation)
        from mtl.stages import train as stage_of

        try:
            stage_of.main(task)
        except UserError as error:
            raise UserError(errors.as_given(str(error))) from error
        metrics = paths.METRICS / f"{task}.json"
        return files.read_json(metrics) if metrics.exists() else None


def reported(metrics: Mapping[str, float | str], epochs: int) -> str:
    """The validation metrics as lines of JSON, in the form that the package cloudml-hypertune writes."""
    common = {"timestamp": time.time(), "trial": os.environ.get("CLOUD_ML_TRIAL_ID", "0"), "global_step": str(epochs)}
    found = [{name: str(value)} for name, value in sorted(metrics.items()) if name.startswith("val_")]
    return "".join(json.dumps(common | metric, sort_keys=True) + "\n" for metric in found)
