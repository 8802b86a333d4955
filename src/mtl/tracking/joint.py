"""The joint model as MLflow logs it: every task's network in one pyfunc. MLflow runs this file when it loads the model.

It imports no other module of the project, so that a server needs only keras, numpy and pandas. The user's own modules,
whose layers a network has, are logged with it and imported before the network is loaded.
"""

from __future__ import annotations

import importlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext


class JointModel(PythonModel):
    """Answers for all tasks: uint8 images (N, H, W, 3) in, columns `<task>` and `<task>_probability` per task out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load each task's network in safe mode."""
        import keras

        folder = Path(context.artifacts["models"])
        imports = folder / "imports.json"
        for module in json.loads(imports.read_text(encoding="utf-8")) if imports.is_file() else []:
            importlib.import_module(module)
        self.names: dict[str, list[str]] = {}
        self.networks = {}
        for path in sorted(folder.glob("*.keras")):
            with zipfile.ZipFile(path) as archive:
                task = json.loads(archive.read("metadata.json"))["task"]
            self.names[task["name"]] = task["names"]
            self.networks[task["name"]] = keras.saving.load_model(path, compile=False, safe_mode=True)

    def predict(self, context: PythonModelContext, model_input: np.ndarray, params: Any = None) -> pd.DataFrame:
        """Predict the name of the label and its probability for each image and task."""
        columns: dict[str, Any] = {}
        for task, network in self.networks.items():
            probabilities = network.predict(model_input, verbose=0)
            best = probabilities.argmax(axis=1)
            columns[task] = [self.names[task][index] for index in best]
            columns[f"{task}_probability"] = probabilities.max(axis=1).astype(float)
        return pd.DataFrame(columns)


set_model(JointModel())
