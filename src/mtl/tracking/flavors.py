"""Models as MLflow keeps them: with signature, input example and requirements."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

    from mtl.shards import Images

INPUT_IMAGES = 2  # of the input example that is logged with a model


def save_model(folder: Path, model: keras.Model, classes: list[str], images: np.ndarray | Images) -> None:
    """Save a task's model into `folder` in MLflow's format; `images` are uint8 (N, H, W, 3)."""
    import mlflow

    with redirect_stdout(io.StringIO()):  # the progress bars that Keras prints while MLflow tries the input example
        mlflow.tensorflow.save_model(
            model,
            str(folder),
            signature=signature(images, len(classes)),
            input_example=np.asarray(images[:INPUT_IMAGES]),
            pip_requirements=requirements("mlflow", "tensorflow", "keras", "numpy"),
            metadata={"classes": classes},
        )


def save_joint_model(folder: Path, models: Path, images: np.ndarray | Images) -> None:
    """Save the models of all tasks, `<task>.keras` and classes.json in `models`, into `folder` as one pyfunc."""
    import mlflow

    with redirect_stdout(io.StringIO()):
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=Path(__file__).parents[1] / "joint.py",
            artifacts={"models": str(models)},
            signature=signature(images, None),
            input_example=np.asarray(images[:INPUT_IMAGES]),
            pip_requirements=requirements("mlflow", "tensorflow", "keras", "numpy", "pandas"),
        )


def signature(images: np.ndarray | Images, classes: int | None) -> Any:
    """uint8 images in; probabilities out, or whatever the joint model's table has."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    inputs = Schema([TensorSpec(np.dtype(np.uint8), (-1, *images.shape[1:]))])
    outputs = Schema([TensorSpec(np.dtype(np.float32), (-1, classes))]) if classes else None
    return ModelSignature(inputs, outputs)


def requirements(*packages: str) -> list[str]:
    """The installed versions, as a requirements file pins them."""
    return [f"{package}=={version(package)}" for package in packages]
