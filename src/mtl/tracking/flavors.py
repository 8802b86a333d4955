"""What MLflow is told about a model beside its files: signature and requirements."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def without_bars(call: Callable[..., Any]) -> Callable[..., Any]:
    """`call` without the progress bars that Keras prints while MLflow tries the input example."""

    def quiet(*args: Any, **kwargs: Any) -> Any:
        with redirect_stdout(io.StringIO()):
            return call(*args, **kwargs)

    return quiet


def signature(images: np.ndarray, classes: int | None) -> Any:
    """uint8 images in; probabilities out, or whatever the joint model's table has."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    inputs = Schema([TensorSpec(np.dtype(np.uint8), (-1, *images.shape[1:]))])
    outputs = Schema([TensorSpec(np.dtype(np.float32), (-1, classes))]) if classes else None
    return ModelSignature(inputs, outputs)


def requirements(*packages: str) -> list[str]:
    """The installed versions, as a requirements file pins them."""
    return [f"{package}=={version(package)}" for package in packages]
