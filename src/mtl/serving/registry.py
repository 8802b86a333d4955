"""Models out of MLflow's registry: the joint model that `main_evaluate` logs, or one task's model."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mtl import models, tracking
from mtl.errors import UserError, one_line
from mtl.serving import loading


def current_version(uri: str) -> str | None:
    """The version that the alias in `models:/name@alias` points at now; None for URIs without an alias."""
    import mlflow

    match = re.fullmatch(r"models:/([^/@]+)@([^/@]+)", uri)
    if match is None:
        return None
    with _answers(uri):
        client = mlflow.MlflowClient(tracking.uri(), tracking.uri())
        return str(client.get_model_version_by_alias(match[1], match[2]).version)


def load(uri: str) -> dict[str, loading.Loaded]:
    """Download, load and compile what `uri` names, `models:/name@alias`, `models:/name/version` or `models:/id`.

    Nothing in it is run: of a joint model only the Keras files are read, in safe mode.

    Raises UserError where it cannot be had, or is neither a joint model nor a Keras model with class names.
    """
    import mlflow

    version = current_version(uri) or uri.rpartition("/")[2]
    with tempfile.TemporaryDirectory() as folder:
        with _answers(uri):
            mlflow.set_tracking_uri(tracking.uri())
            root = Path(mlflow.artifacts.download_artifacts(uri, dst_path=folder))
            logged = mlflow.models.Model.load(root)
        if "tensorflow" in logged.flavors:
            return _one_task(uri, root, logged, version)
        artifacts = logged.flavors.get("python_function", {}).get("artifacts") or {}
        joint = root / artifacts.get("models", {}).get("path", "")
        if "models" not in artifacts or not (joint / "classes.json").exists():
            raise UserError(f"{uri}: neither the joint model nor a task's model of this project")
        return loading.from_folder(joint, json.loads((joint / "classes.json").read_text(encoding="utf-8")), version)


def _one_task(uri: str, root: Path, logged: object, version: str) -> dict[str, loading.Loaded]:
    classes = (getattr(logged, "metadata", None) or {}).get("classes")
    files = sorted(root.glob("data/*.keras"))
    if not classes or len(files) != 1:
        raise UserError(f"{uri}: a model without class names; log it as this project's stages do")
    task = re.sub(r"[/@].*", "", uri.removeprefix("models:/"))
    return {task: loading.load(task, models.read(files[0]), loading.read_labels(task, classes), version)}


@contextmanager
def _answers(uri: str) -> Iterator[None]:
    """Turn what MLflow raises into one line."""
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, requests.RequestException, OSError) as error:
        raise UserError(f"{uri}: cannot be read from the registry: {one_line(error)[:300]}") from None
