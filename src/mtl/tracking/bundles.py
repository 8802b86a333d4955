"""The files of a joint model, or of one task's model, downloaded from MLflow. No code in them is run.

A model is described by what was logged with it alone: never by the params.yaml or the data of the working folder.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mtl import files
from mtl.data import paths
from mtl.errors import UserError
from mtl.networks import saving
from mtl.tasks import kinds, own, relations, spec
from mtl.tasks.relations import Relations
from mtl.tasks.spec import TaskSpec
from mtl.tracking import artifacts
from mtl.tracking.flavors import IMPORTS

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Bundle:
    """Keras files of tasks, and what their answers mean.

    Attributes:
        uri: the URI it was fetched by.
        files: the `.keras` file of each task.
        tasks: what each file says of its task.
        imports: the user's own modules, which register the layers of the models. They are not imported.
        relations: between the tasks; none where it is one task's model.
    """

    uri: str
    files: dict[str, Path]
    tasks: dict[str, TaskSpec]
    imports: tuple[str, ...] = ()
    relations: Relations = field(default_factory=Relations)


class UnknownTasksError(UserError):
    """A model does not say what its answers mean: an earlier version logged it."""


def fetch(uri: str, folder: Path) -> Bundle:
    """Download a model, `models:/…`, that `Run.log_joint_model` or `Run.log_model` logged into `folder`.

    Raises UserError where there is no such model, or it is neither kind; UnknownTasksError
    where it is of an earlier version.
    """
    from mlflow.models import Model

    root = artifacts.download_model(uri, folder)
    logged = Model.load(root)
    parts = logged.flavors.get("python_function", {}).get("artifacts") or {}
    joint = root / parts.get("models", {}).get("path", "artifacts")
    imports = (logged.metadata or {}).get("imports")
    if (joint / IMPORTS).is_file():
        imports = files.read_json(joint / IMPORTS)
    models = sorted(joint.glob("*.keras")) or sorted(root.glob("data/*.keras"))
    if not models:
        raise UserError(f"{uri}: neither a joint model nor a task's model of this project")
    try:
        tasks = [spec.read_from_model(path) for path in models]
    except UserError:
        raise UnknownTasksError(
            f"{uri}: an earlier version logged it, or it is none of this project: it does not say what its answers"
            " mean; `dvc repro` and `mtl promote` make a new one"
        ) from None
    by_name = {task.name: task for task in tasks}
    kept = joint / paths.RELATIONS.name
    related = relations.read(files.read_json(kept)) if kept.is_file() else relations.UNRELATED
    return Bundle(uri, dict(zip(by_name, models, strict=True)), by_name, tuple(imports or ()), related)


def read(bundle: Bundle) -> dict[str, keras.Model]:
    """Load the models of a bundle in safe mode.

    Raises UserError where one does not load, or its number of outputs is not that of its classes.
    """
    networks = {}
    for task, file in bundle.files.items():
        kinds.find_imported(bundle.tasks[task].kind, f"{bundle.uri}: {task}")
        try:
            networks[task] = saving.read(file)
        except UserError as error:
            missing = [module for module in bundle.imports if module not in sys.modules]
            if missing:
                raise UserError(
                    f"{bundle.uri}: {task} has layers of the module {missing[0]}, which was not imported;"
                    f" {own.how_to_import(missing[0])}"
                ) from None
            raise UserError(f"{bundle.uri}: {str(error).replace(str(file), file.name)}") from None
        names = bundle.tasks[task].names
        if networks[task].output_shape != (None, len(names)):
            raise UserError(
                f"{bundle.uri}: the model of {task} gives {networks[task].output_shape};"
                f" its {len(names)} names need one output each"
            )
    return networks
