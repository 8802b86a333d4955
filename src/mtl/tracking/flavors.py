"""Models in MLflow's format: with signature, input example, requirements and the user's own code."""

from __future__ import annotations

import io
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mtl.networks import saving
from mtl.tasks import spec
from mtl.tasks.spec import TaskSpec
from mtl.tracking import code

if TYPE_CHECKING:
    import keras
    from mlflow.models import ModelSignature
    from mlflow.types import Schema

    from mtl.data.shards import ShardedImages

INPUT_IMAGES = 2  # in the input example of a model
IMPORTS = "imports.json"  # in the joint model, beside the models: the modules that joint.py imports


def save_model(
    folder: Path, model: keras.Model, task: TaskSpec, imports: Sequence[str], images: np.ndarray | ShardedImages
) -> None:
    """Save a task's model into `folder` in MLflow's format.

    Args:
        folder: an empty folder.
        model: the task's model.
        task: what its answers mean.
        imports: the user's own modules that register its layers.
        images: uint8 (N, H, W, 3); the first ones become the input example.
    """
    import mlflow

    with _code_paths(imports) as paths:
        mlflow.tensorflow.save_model(
            model,
            str(folder),
            code_paths=paths,
            signature=signature(images, task_outputs(len(task.names))),
            input_example=np.asarray(images[:INPUT_IMAGES]),
            pip_requirements=requirements("mlflow", "tensorflow", "keras", "numpy", *code.distributions(imports)),
            metadata={"task": task.document(), "imports": list(imports)},
        )
    _replace_model(folder, model, task)
    _add_keras_flavor(folder)
    _warn_unless_loadable(folder, imports, "the model")


def save_joint_model(folder: Path, models: Path, images: np.ndarray | ShardedImages) -> None:
    """Save the models of all tasks into `folder` as one pyfunc.

    Args:
        folder: an empty folder.
        models: folder with `<task>.keras` and, where networks have the user's own layers, IMPORTS.
        images: uint8 (N, H, W, 3); the first ones become the input example.
    """
    import mlflow

    tasks = [spec.read_from_model(path) for path in sorted(models.glob("*.keras"))]
    imports = json.loads((models / IMPORTS).read_text(encoding="utf-8")) if (models / IMPORTS).is_file() else []
    packages = ("mlflow", "tensorflow", "keras", "numpy", "pandas", *code.distributions(imports))
    with _code_paths(imports) as paths:
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=Path(__file__).with_name("joint.py"),
            artifacts={"models": str(models)},
            code_paths=paths,
            signature=signature(images, joint_outputs(tasks)),
            input_example=np.asarray(images[:INPUT_IMAGES]),
            pip_requirements=requirements(*packages),
        )
    _warn_unless_loadable(folder, imports, "the joint model")


def _replace_model(folder: Path, model: keras.Model, task: TaskSpec) -> None:
    """Write the saved model again as this project does, with its task in it, in the place of Keras' own file."""
    (path,) = folder.glob("data/*.keras")
    saving.write(model, path, task)


def signature(images: np.ndarray | ShardedImages, outputs: Schema) -> ModelSignature:
    """The signature of a model from uint8 images (N, H, W, 3) to `outputs`."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    return ModelSignature(Schema([TensorSpec(np.dtype(np.uint8), (-1, *images.shape[1:]))]), outputs)


def task_outputs(classes: int) -> Schema:
    """The output of a task's model: float32 (N, classes)."""
    from mlflow.types import Schema, TensorSpec

    return Schema([TensorSpec(np.dtype(np.float32), (-1, classes))])


def joint_outputs(tasks: Sequence[TaskSpec]) -> Schema:
    """The output of the joint model: a table, which a signature allows although the input is a tensor."""
    from mlflow.types import ColSpec, Schema, TensorSpec

    columns: list[ColSpec | TensorSpec] = []
    for task in tasks:
        columns.append(ColSpec("double" if task.kind == "value" else "string", task.name))
        if task.kind == "classes":
            columns.append(ColSpec("double", f"{task.name}_probability"))
        elif task.kind == "multilabel":
            columns += [ColSpec("double", f"{task.name}_{label}") for label in task.names]
        elif task.residuals is not None:
            columns += [ColSpec("double", f"{task.name}_{end}") for end in ("low", "high")]
    return Schema(columns)


def requirements(*packages: str) -> list[str]:
    """Requirements that pin the installed versions of packages."""
    return [f"{package}=={version(package)}" for package in packages]


@contextmanager
def _code_paths(imports: Sequence[str]) -> Iterator[list[str] | None]:
    """Yield MLflow's `code_paths`, and hide the progress bars of Keras while MLflow tries the input example.

    Whoever loads the model with MLflow runs that code: joint.py imports it, and for a Keras model MLflow does, because
    its list of registered layers refers to it.
    """
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        yield code.copy(imports, Path(folder)) if imports else None


def _add_keras_flavor(folder: Path) -> None:
    """Let `mlflow.keras.load_model` load what `mlflow.tensorflow` saved: both keep the same file in the same place.

    MLflow's TensorFlow flavor reads the entry of Keras first, so that entry needs the keys of both.
    """
    import keras
    from mlflow.models import Model

    saved = Model.load(str(folder))
    own = {"keras_version": keras.__version__, "keras_backend": keras.backend.backend(), "save_exported_model": False}
    saved.add_flavor("keras", **saved.flavors["tensorflow"] | own)
    saved.save(str(folder / "MLmodel"))


def _warn_unless_loadable(folder: Path, imports: Sequence[str], what: str) -> None:
    """Warn where a model with the user's own code does not load elsewhere; it is logged all the same."""
    if imports and (reason := code.load_error(folder)):
        print(
            f"WARNING: {what}, as it is logged, cannot be loaded outside of this repository: {reason};"
            f" {', '.join(imports)} must contain or import all that it needs",
            file=sys.stderr,
        )
