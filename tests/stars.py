"""A kind of a person's own, for tests: stars from 1 to `most`, answered as a number between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.config.params import OwnKind
from mtl.config.recipes import LossName
from mtl.errors import UserError
from mtl.tasks import statistics
from mtl.tasks.answers import Answers
from mtl.tasks.columns import Split
from mtl.tasks.kinds import Goal, Rows
from mtl.tasks.spec import TaskSpec
from mtl.tasks.targets import Head, Targets

if TYPE_CHECKING:
    import keras
    import pyarrow as pa


class Stars:
    """The kind. The network gives the place between 1 star and the most, from 0 to 1."""

    LOSSES: tuple[LossName, ...] = ("mae", "mse")
    SCORES: Mapping[str, Goal] = {"near": "maximize", "skill": "maximize"}
    ACTIVATIONS = ("sigmoid",)
    OUTPUT = "stars"

    def derive(
        self, name: str, task: OwnKind, tables: Mapping[Split, pa.Table]
    ) -> tuple[TaskSpec, dict[Split, Targets]]:
        (column,), targets = task.columns, {}
        for split, table in tables.items():
            cells = np.array(table[column].to_pylist(), float)
            if (cells < 1).any() or (cells > task.options["most"]).any():
                raise UserError(f"tasks.{name}: column {column!r}, {split}: stars are from 1 to {task.options['most']}")
            targets[split] = Targets(np.nan_to_num(cells), ~np.isnan(cells))
        labels, known = targets["train"]
        options = {"most": task.options["most"]}
        mean = float(labels[known].mean())
        return TaskSpec(
            name=name, kind=task.kind, columns=(column,), names=("stars",), mean=mean, options=options
        ), targets

    def counts(self, spec: TaskSpec, targets: Targets) -> dict[str, Any]:
        return {"examples": int(targets.known.sum())}

    def carried(self, spec: TaskSpec, targets: Targets, gaps: bool) -> np.ndarray:
        place = ((targets.labels - 1) / (spec.options["most"] - 1)).astype(np.float32)
        return np.stack([place, targets.known], axis=1) if gaps else place

    def width(self, head: Head) -> int:
        return 1 + head.gaps

    def encode(self, labels: np.ndarray, head: Head) -> np.ndarray:
        return labels.astype(np.float32)

    def loss(self, name: LossName, label_smoothing: float, head: Head) -> keras.Loss:
        import keras

        return keras.losses.MeanAbsoluteError() if name == "mae" else keras.losses.MeanSquaredError()

    def accuracy(self, head: Head) -> None:
        return None

    def constant(self, spec: TaskSpec) -> np.ndarray:
        return np.array([spec.mean])

    def finished(self, spec: TaskSpec, outputs: np.ndarray) -> np.ndarray:
        return outputs * (spec.options["most"] - 1) + 1

    def finish(self, model: keras.Model, spec: TaskSpec) -> keras.Model:
        import keras

        scaled = keras.layers.Rescaling(spec.options["most"] - 1, offset=1.0, dtype="float32")(model.outputs[0])
        return keras.Model(model.inputs, scaled, name=model.name)

    def link(self, spec: TaskSpec, outputs: Any, xp: Any = np) -> Any:
        return outputs

    def inverse_link(self, spec: TaskSpec, linked: Any, xp: Any = np) -> Any:
        return linked

    def calibrate(self, answers: Answers, temperature: Callable[[Answers], float]) -> TaskSpec:
        raise UserError("stars are not calibrated")

    def settle(self, spec: TaskSpec, on_validation: Callable[[], Answers]) -> TaskSpec:
        return spec

    def fault(self, outputs: np.ndarray) -> str:
        return "" if np.isfinite(outputs).all() else "stars are finite"

    def one_answer(self, outputs: np.ndarray) -> bool:
        return bool(np.ptp(outputs) < 1e-6)

    def loss_of(self, answers: Answers) -> float:
        return float(np.abs(answers.outputs[:, 0] - answers.labels).mean())

    def losses(self, answers: Answers) -> np.ndarray:
        return np.where(answers.is_known, np.abs(answers.outputs[:, 0] - answers.labels), np.nan)

    def judge(self, answers: Answers) -> dict[str, Any]:
        trivial = float(np.abs(answers.labels - answers.task.mean).mean())
        return {"near": float(self.utility(answers).mean()), "skill": 1 - self.loss_of(answers) / trivial}

    def interval(self, answers: Answers) -> tuple[float, float]:
        return statistics.wilson(int(self.utility(answers).sum()), len(answers.labels))

    def utility(self, answers: Answers) -> np.ndarray:
        near = np.abs(answers.outputs[:, 0] - answers.labels) < 1
        return np.where(answers.is_known, near, np.nan)

    def confidence(self, outputs: np.ndarray) -> np.ndarray:
        return np.zeros(len(outputs))

    def tables(self, answers: Answers) -> dict[str, Rows]:
        pairs = zip(answers.labels.tolist(), answers.outputs[:, 0].tolist(), strict=True)
        return {"values": [{"actual": actual, "predicted": predicted} for actual, predicted in pairs]}

    def ideal(self, spec: TaskSpec, labels: np.ndarray) -> np.ndarray:
        return labels.astype(np.float32)[:, None]

    def drift(self, spec: TaskSpec, outputs: np.ndarray) -> float:
        return float(abs(outputs.mean() - spec.mean))

    def decode(self, spec: TaskSpec, outputs: np.ndarray) -> list[dict[str, Any]]:
        return [{"stars": stars} for stars in outputs[:, 0].tolist()]

    def caption(self, spec: TaskSpec, answer: Mapping[str, Any]) -> str:
        return f"{answer['stars']:.1f} of {spec.options['most']}"

    def truth(self, spec: TaskSpec, label: Any) -> float:
        if label not in range(1, spec.options["most"] + 1):
            raise ValueError(f"{spec.name} takes 1 to {spec.options['most']} stars")
        return float(label)


KIND = Stars()
