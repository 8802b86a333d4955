"""The joint model as MLflow logs it: every task's network in one pyfunc. MLflow runs this file when it loads the model.

It imports no other module of the project, so that a server needs only keras, numpy and pandas. The user's own modules,
whose layers a network has, are logged with it and imported before the network is loaded.
"""

from __future__ import annotations

import importlib
import json
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

TINY = 1e-30  # probabilities are clipped to it before their logarithm


class JointModel(PythonModel):
    """Answers for all tasks: uint8 images (N, H, W, 3) in, the columns of `columns` for each task out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load each task's network in safe mode."""
        import keras

        folder = Path(context.artifacts["models"])
        imports = folder / "imports.json"
        for module in json.loads(imports.read_text(encoding="utf-8")) if imports.is_file() else []:
            importlib.import_module(module)
        self.tasks: dict[str, dict[str, Any]] = {}
        self.networks = {}
        for path in sorted(folder.glob("*.keras")):
            with zipfile.ZipFile(path) as archive:
                task = json.loads(archive.read("metadata.json"))["task"]
            self.tasks[task["name"]] = task
            self.networks[task["name"]] = keras.saving.load_model(path, compile=False, safe_mode=True)
        kept = folder / "relations.json"
        self.related = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}

    def predict(self, context: PythonModelContext, model_input: np.ndarray, params: Any = None) -> pd.DataFrame:
        """Predict for each image and task."""
        answers: dict[str, Any] = {}
        outputs = {task: network.predict(model_input, verbose=0) for task, network in self.networks.items()}
        for task in self.tasks.values():
            bounds = self.related.get("residuals", {}).get(task["name"], task.get("residuals"))
            answers |= columns(task | {"residuals": bounds}, answered(task, outputs, self.related))
        return pd.DataFrame(answers)


def answered(task: dict[str, Any], outputs: dict[str, np.ndarray], related: dict[str, Any]) -> np.ndarray:
    """The answer to a task, (N, K), by its option: its own model's output, the derived answer, or both combined.

    Without the base's output its own model answers, whatever the option.
    As `mtl.tasks.relations.answered`, from the content of relations.json.
    """
    name, kind = task["name"], task["kind"]
    by, own, base = related.get("answer", {}).get(name), outputs[name], related.get("derived", {}).get(name)
    if by is None or base not in outputs:
        return own
    (pair,) = [pair for pair in related["pairs"] if (pair["base"], pair["target"]) == (base, name)]
    p = outputs[base] if kind == "classes" and pair["functional"] else _normalised(outputs[base])
    derived = p @ np.array(pair["table"])
    if kind == "value":
        derived = _in_unit(task, derived)
    if by == "derived":
        return derived.astype(np.float32)
    a, b = related["weights"][name]
    linked = a * _link(task, own.astype(float)) + b * _link(task, derived.astype(float))
    if kind == "classes":
        both = _normalised(np.exp(linked - linked.max(axis=1, keepdims=True)))
    else:
        both = _in_unit(task, linked) if kind == "value" else 0.5 + 0.5 * np.tanh(0.5 * linked)
    return both.astype(np.float32)


def _normalised(p: np.ndarray) -> np.ndarray:
    positive = p.astype(float).clip(TINY)
    return positive / positive.sum(axis=1, keepdims=True)


def _in_unit(task: dict[str, Any], numbers: np.ndarray) -> np.ndarray:
    scaled = numbers * task["deviation"] + task["mean"]
    return np.exp(scaled) if task.get("transform") == "log" else scaled


def _link(task: dict[str, Any], outputs: np.ndarray) -> np.ndarray:
    if task["kind"] == "value":
        least = float(np.finfo(np.float32).tiny)
        numbers = np.log(np.maximum(outputs, least)) if task.get("transform") == "log" else outputs
        return (numbers - task["mean"]) / task["deviation"]
    odds = 0.0 if task["kind"] == "classes" else np.log(np.clip(1 - outputs, TINY, 1))
    return np.log(np.clip(outputs, TINY, 1)) - odds


def columns(task: dict[str, Any], outputs: np.ndarray) -> dict[str, Any]:
    """The answers to a task, by the kind of its TaskSpec as JSON, from outputs (N, K).

    `classes`: `<task>`, the name, and its `<task>_probability`. `multilabel`: `<task>`, the names that are true, with
    the column's delimiter or `|` between them, and for each name its probability, `<task>_<name>`. `value`: `<task>`,
    the number in its unit, and of a calibrated model `<task>_low` and `<task>_high`. A person's own kind: `<task>`, its
    answer as JSON; its module is logged with the model.
    """
    name, names, kind = task["name"], task["names"], task["kind"]
    if kind == "classes":
        best = outputs.argmax(axis=1)
        return {name: [names[k] for k in best], f"{name}_probability": outputs.max(axis=1).astype(float)}
    if kind == "multilabel":
        true = outputs >= np.array(task.get("thresholds") or [0.5] * len(names), np.float32)
        between = task.get("delimiter") or "|"
        said = [between.join(label for label, on in zip(names, row, strict=True) if on) for row in true]
        return {name: said} | {f"{name}_{label}": outputs[:, k].astype(float) for k, label in enumerate(names)}
    if kind == "value":
        return {name: outputs[:, 0].astype(float), **bounds(task, outputs[:, 0].astype(float))}
    module, _, attribute = kind.partition(":")
    if not attribute:
        raise ValueError(f"task {name} is of the kind {kind!r}, which this server does not know")
    own = getattr(importlib.import_module(module), attribute)
    return {name: [json.dumps(answer) for answer in own.decode(SimpleNamespace(**task), outputs)]}


def bounds(task: dict[str, Any], numbers: np.ndarray) -> dict[str, np.ndarray]:
    """`<task>_low` and `<task>_high`, between which 95 % lie, where the model of a value is calibrated."""
    if not task.get("residuals"):
        return {}
    is_log = task.get("transform") == "log"
    spread = [residual * task["deviation"] for residual in task["residuals"]]
    each = zip(("low", "high"), spread, strict=True)
    return {f"{task['name']}_{end}": numbers * np.exp(by) if is_log else numbers + by for end, by in each}


set_model(JointModel())
