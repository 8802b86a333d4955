"""Models as MLflow keeps them: with signature, input example, requirements and a person's own code."""

from __future__ import annotations

import io
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.tracking import code

if TYPE_CHECKING:
    import keras
    from mlflow.models import ModelSignature
    from mlflow.types import Schema

    from mtl.data.shards import Images

INPUT_IMAGES = 2  # of the input example that is logged with a model
IMPORTS = "imports.json"  # in the joint model, beside classes.json: the modules that joint.py imports


def save_model(folder: Path, model: keras.Model, about: Mapping[str, Any], images: np.ndarray | Images) -> None:
    """Save a task's model into `folder` in MLflow's format.

    Args:
        folder: an empty one.
        model: of the task.
        about: what goes with it as metadata: `classes`, and whatever else is known; `imports` are a person's own
            modules, which register its layers.
        images: uint8 (N, H, W, 3).
    """
    import mlflow

    imports = list(about.get("imports", []))
    with _own_code(imports) as paths:
        mlflow.tensorflow.save_model(
            model,
            str(folder),
            code_paths=paths,
            signature=signature(images, probabilities(len(about["classes"]))),
            input_example=np.asarray(images[:INPUT_IMAGES]),
            pip_requirements=requirements("mlflow", "tensorflow", "keras", "numpy", *code.distributions(imports)),
            metadata=dict(about),
        )
    _add_keras_flavor(folder)
    _try(folder, imports, "the model")


def save_joint_model(folder: Path, models: Path, images: np.ndarray | Images) -> None:
    """Save the models of all tasks into `folder` as one pyfunc.

    `models` holds `<task>.keras`, classes.json and, where networks have layers of a person's own, IMPORTS.
    """
    import mlflow

    classes = json.loads((models / "classes.json").read_text(encoding="utf-8"))
    imports = json.loads((models / IMPORTS).read_text(encoding="utf-8")) if (models / IMPORTS).is_file() else []
    packages = ("mlflow", "tensorflow", "keras", "numpy", "pandas", *code.distributions(imports))
    with _own_code(imports) as paths:
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=Path(__file__).with_name("joint.py"),
            artifacts={"models": str(models)},
            code_paths=paths,
            signature=signature(images, answers(list(classes))),
            input_example=np.asarray(images[:INPUT_IMAGES]),
            pip_requirements=requirements(*packages),
        )
    _try(folder, imports, "the joint model")


def signature(images: np.ndarray | Images, outputs: Schema) -> ModelSignature:
    """uint8 images in, `outputs` out."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    return ModelSignature(Schema([TensorSpec(np.dtype(np.uint8), (-1, *images.shape[1:]))]), outputs)


def probabilities(classes: int) -> Schema:
    """What a task's model answers."""
    from mlflow.types import Schema, TensorSpec

    return Schema([TensorSpec(np.dtype(np.float32), (-1, classes))])


def answers(tasks: Sequence[str]) -> Schema:
    """What the joint model answers: a table. MLflow takes one beside a tensor, if not within one schema."""
    from mlflow.types import ColSpec, Schema

    names = [(ColSpec("string", task), ColSpec("double", f"{task}_probability")) for task in tasks]
    return Schema([column for pair in names for column in pair])


def requirements(*packages: str) -> list[str]:
    """The installed versions, as a requirements file pins them."""
    return [f"{package}=={version(package)}" for package in packages]


@contextmanager
def _own_code(imports: Sequence[str]) -> Iterator[list[str] | None]:
    """Yield what MLflow is to log as `code_paths`; Keras' progress bars, while it tries the input example, are hidden.

    Whoever loads the model by MLflow decides to run that code: joint.py imports it, and for a Keras model MLflow itself
    does, as its list of registered layers refers to it.
    """
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        yield code.copy(imports, Path(folder)) if imports else None


def _add_keras_flavor(folder: Path) -> None:
    """Let `mlflow.keras.load_model` load what `mlflow.tensorflow` saved: the two keep the same file in the same place.

    MLflow's TensorFlow flavor reads the entry of Keras first, so that it has to hold what either asks for.
    """
    import keras
    from mlflow.models import Model

    saved = Model.load(str(folder))
    own = {"keras_version": keras.__version__, "keras_backend": keras.backend.backend(), "save_exported_model": False}
    saved.add_flavor("keras", **saved.flavors["tensorflow"] | own)
    saved.save(str(folder / "MLmodel"))


def _try(folder: Path, imports: Sequence[str], what: str) -> None:
    """Say where a model with a person's own code cannot be loaded elsewhere; it is logged all the same."""
    if imports and (fault := code.fault(folder)):
        print(
            f"WARNING: {what}, as it is logged, cannot be loaded outside of this repository: {fault};"
            f" {', '.join(imports)} must bring along or name all that it needs",
            file=sys.stderr,
        )
