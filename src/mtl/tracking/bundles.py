"""The files of a joint model, or of one task's model, downloaded from MLflow. No code in them is run.

A model is described by what was logged with it alone: never by the params.yaml or the data of the working folder.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl import files
from mtl.errors import UserError
from mtl.networks import saving
from mtl.tracking import artifacts

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Bundle:
    """Keras files of tasks, and the names of their outputs.

    Attributes:
        uri: the URI it was fetched by.
        files: the `.keras` file of each task.
        classes: the names of each task's classes in label order.
        of_class: for each task, its name for each class of the data set; None where that was not logged.
        frequencies: for each task, the share of each label in training; None where that was not logged.
        imports: the user's own modules, which register the layers of the models. They are not imported.
    """

    uri: str
    files: dict[str, Path]
    classes: dict[str, list[str]]
    of_class: dict[str, dict[str, str]] | None
    frequencies: dict[str, list[float]] | None = None
    imports: tuple[str, ...] = ()


def fetch(uri: str, folder: Path) -> Bundle:
    """Download a model, `models:/…`, that `Run.log_joint_model` or `Run.log_model` logged into `folder`.

    Raises UserError where there is no such model, or it is neither kind.
    """
    from mlflow.models import Model

    root = artifacts.download_model(uri, folder)
    logged = Model.load(root)
    parts = logged.flavors.get("python_function", {}).get("artifacts") or {}
    joint = root / parts.get("models", {}).get("path", "artifacts")
    if (joint / "classes.json").is_file():

        def read_optional(name: str) -> Any:
            return files.read_json(joint / name) if (joint / name).is_file() else None

        classes = read_optional("classes.json")
        models = {task: joint / f"{task}.keras" for task in classes}
        of_class, frequencies = read_optional("of_class.json"), read_optional("frequencies.json")
        return Bundle(uri, models, classes, of_class, frequencies, tuple(read_optional("imports.json") or ()))
    about, keras_files = logged.metadata or {}, sorted(root.glob("data/*.keras"))
    if not about.get("classes") or len(keras_files) != 1:
        raise UserError(f"{uri}: neither a joint model nor a task's model of this project")
    task = uri.removeprefix("models:/").partition("@")[0].partition("/")[0]
    if task == logged.model_id:
        task = about.get("task", task)
    of_class, frequencies = ({task: about[key]} if about.get(key) else None for key in ("of_class", "frequencies"))
    imports = tuple(about.get("imports") or ())
    return Bundle(uri, {task: keras_files[0]}, {task: about["classes"]}, of_class, frequencies, imports)


def read(bundle: Bundle) -> dict[str, keras.Model]:
    """Load the models of a bundle in safe mode.

    Raises UserError where one does not load, or its number of outputs is not that of its classes.
    """
    networks = {}
    for task, file in bundle.files.items():
        try:
            networks[task] = saving.read(file)
        except UserError as error:
            missing = [module for module in bundle.imports if module not in sys.modules]
            if missing:
                raise UserError(
                    f"{bundle.uri}: {task} has layers of the module {missing[0]}, which was not imported:"
                    f" `mtl serve --import {missing[0]}`, or mtl.load(…, imports=[{missing[0]!r}])"
                ) from None
            raise UserError(f"{bundle.uri}: {str(error).replace(str(file), file.name)}") from None
        if networks[task].output_shape != (None, len(bundle.classes[task])):
            raise UserError(
                f"{bundle.uri}: the model of {task} gives {networks[task].output_shape};"
                f" its {len(bundle.classes[task])} classes need one output each"
            )
    return networks
