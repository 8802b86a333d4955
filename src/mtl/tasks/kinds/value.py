"""The kind `value`: a number. The network learns it standardised and answers in its unit; outputs are (N, 1)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.config.params import PATH, Value
from mtl.config.recipes import LossName
from mtl.errors import UserError
from mtl.tasks import grouping, statistics
from mtl.tasks.answers import Answers
from mtl.tasks.columns import Split
from mtl.tasks.kinds import Goal, PerExample, Rows
from mtl.tasks.spec import TaskSpec
from mtl.tasks.targets import Head, Targets

if TYPE_CHECKING:
    import keras
    import pyarrow as pa

LOSSES: tuple[LossName, ...] = ("mse", "mae", "huber")
SCORES: Mapping[str, Goal] = {
    "r2": "maximize",
    "skill": "maximize",
    "spearman": "maximize",
    "mae": "minimize",
    "rmse": "minimize",
}
ACTIVATIONS: tuple[str, ...] = ("linear",)
OUTPUT: str = "values"

MOST_POINTS = 1000  # of a scatter plot
QUANTILES = (0.025, 0.975)  # of the residuals
FEWEST_RESIDUALS = 40  # for these quantiles: one beyond each


def derive(name: str, task: Value, tables: Mapping[Split, pa.Table]) -> tuple[TaskSpec, dict[Split, Targets]]:
    """Labels are the numbers of a column, with the mean and the deviation of the training ones, transformed.

    Raises UserError where a value is no finite number or, with `transform: log`, not above 0; where no example of a
    split that needs one is known; where all training values are the same, or too close to each other for 32 bits.
    """
    column = grouping.column_of(name, task.column, tables["train"].column_names)
    place = f"{PATH}: tasks.{name}: column {column!r}"
    targets = {split: _numbers(table[column], task, f"{place}, {split}") for split, table in tables.items()}
    grouping.check_known(place, targets)
    spec = TaskSpec(
        name=name, kind="value", columns=(column,), names=(column,), transform=task.transform, unit=task.unit
    )
    numbers = transformed(spec, targets["train"].labels[targets["train"].known])
    if np.ptp(numbers) == 0:
        raise UserError(f"{place} is {targets['train'].labels.max():g} for every training example: nothing to learn")
    mean, deviation = float(numbers.mean()), float(numbers.std())
    if np.spacing(np.float32(abs(mean))) > deviation / 100:
        raise UserError(
            f"{place}: values differ by {deviation:.3g} around {mean:.10g}, too little for answers in 32 bits; subtract"
            " what they have in common"
        )
    return spec.model_copy(update={"mean": mean, "deviation": deviation}), targets


def _numbers(column: pa.ChunkedArray, task: Value, place: str) -> Targets:
    """The values of a column, float64. Raises UserError, whose message begins with `place` and the row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.null_count == len(column):  # is of the type text
        return Targets(np.zeros(len(column)), np.zeros(len(column), bool))
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        row, value = _first_odd(column)
        raise UserError(
            f"{place}, row {row + 1}: {value!r:.40} is no number; what stands for a gap goes into data.missing, and the"
            " type of the column into data.types"
        )
    known = pc.is_valid(column).to_numpy()
    numbers = pc.fill_null(column.cast(pa.float64(), safe=False), 0.0).to_numpy()  # unsafe: integers above 2^53 too
    wrong = known & ~(np.abs(numbers) <= np.finfo(np.float32).max)
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"{place}, row {row + 1}: {numbers[row]:g} is no finite number of 32 bits; make it a gap (data.missing)"
        )
    if task.transform == "log" and (low := known & (numbers <= 0)).any():
        row = int(low.argmax())
        raise UserError(
            f"{place}, row {row + 1}: {numbers[row]:g} has no logarithm; make it a gap, or leave transform out"
        )
    return Targets(numbers, known)


def _first_odd(column: pa.ChunkedArray) -> tuple[int, Any]:
    """The row and the value of the first that is no number in writing either, else of the first that is no gap."""
    cells = [(row, value) for row, value in enumerate(column.to_pylist()) if value is not None]
    for row, value in cells:
        try:
            float(value)
        except ValueError:
            return row, value
    return cells[0]


def transformed(spec: TaskSpec, numbers: Any, xp: Any = np) -> Any:
    """Numbers in the unit as the network learns them, before they are standardised; `xp` is numpy or keras.ops."""
    return xp.log(xp.maximum(numbers, float(np.finfo(np.float32).tiny))) if spec.transform == "log" else numbers


def standardised(spec: TaskSpec, numbers: Any, xp: Any = np) -> Any:
    """Numbers in the unit, transformed, with the training labels' mean at 0 and their deviation 1."""
    assert spec.mean is not None and spec.deviation is not None  # `derive` sets them
    exact = numbers.astype(np.float64) if xp is np else numbers
    return (transformed(spec, exact, xp) - spec.mean) / spec.deviation


def in_unit(spec: TaskSpec, numbers: Any, xp: Any = np) -> Any:
    """Standardised numbers back in the unit."""
    assert spec.mean is not None and spec.deviation is not None  # `derive` sets them
    scaled = numbers * spec.deviation + spec.mean
    return xp.exp(scaled) if spec.transform == "log" else scaled


def counts(spec: TaskSpec, targets: Targets) -> dict[str, Any]:
    """The number of examples, and where there are some their mean, least and largest value."""
    labels = targets.labels[targets.known]
    if not len(labels):
        return {"examples": 0}
    return {"examples": len(labels), "mean": labels.mean(), "least": labels.min(), "largest": labels.max()}


def carried(spec: TaskSpec, targets: Targets, gaps: bool) -> np.ndarray:
    """The standardised labels, float32 (N,); with `gaps` (N, 2)."""
    numbers = np.where(targets.known, standardised(spec, targets.labels), 0).astype(np.float32)
    return np.stack([numbers, targets.known], axis=1) if gaps else numbers


def width(head: Head) -> int:
    """The value, and with gaps whether it is known."""
    return 1 + head.gaps


def encode(labels: np.ndarray, head: Head) -> np.ndarray:
    """The labels themselves."""
    return labels.astype(np.float32, copy=False)


def loss(name: LossName, label_smoothing: float, head: Head) -> keras.Loss:
    """A loss of Keras, on standardised values, 0 where the label is unknown; there is no smoothing."""
    import keras

    losses = {
        "mse": keras.losses.MeanSquaredError,
        "mae": keras.losses.MeanAbsoluteError,
        "huber": keras.losses.Huber,
    }
    plain = losses[name]()
    if not head.gaps:
        return plain

    class Known(keras.Loss):
        def call(self, y_true: Any, y_pred: Any) -> Any:
            return plain.call(y_true[:, :1], y_pred) * y_true[:, 1]

    return Known(name="known")


def accuracy(head: Head) -> PerExample | None:
    """There is none."""
    return None


def constant(spec: TaskSpec) -> np.ndarray:
    """The mean, of transformed values."""
    return in_unit(spec, np.zeros(1))


def finish(model: keras.Model, spec: TaskSpec) -> keras.Model:
    """The model with what takes its outputs back into the unit: scaled, moved and, with `log`, raised to the power."""
    import keras

    answers = keras.layers.Rescaling(spec.deviation, offset=spec.mean, dtype="float32", name="unit")(model.outputs[0])
    if spec.transform == "log":
        answers = keras.layers.Activation("exponential", dtype="float32", name="exponential")(answers)
    return keras.Model(model.inputs, answers, name=model.name)


def finished(spec: TaskSpec, outputs: np.ndarray) -> np.ndarray:
    """The outputs in the unit."""
    return in_unit(spec, outputs)


def link(spec: TaskSpec, outputs: Any, xp: Any = np) -> Any:
    """Numbers in the unit, transformed and standardised."""
    return standardised(spec, outputs, xp)


def inverse_link(spec: TaskSpec, linked: Any, xp: Any = np) -> Any:
    """Standardised numbers back in the unit."""
    return in_unit(spec, linked, xp)


def calibrate(answers: Answers, temperature: Callable[[Answers], float]) -> TaskSpec:
    """The task with the quantiles of the residuals that 95 % of them lie between."""
    errors = -_errors(answers)
    if len(errors) < FEWEST_RESIDUALS:
        raise UserError(
            f"{len(errors)} validation examples have a label, and {FEWEST_RESIDUALS} are needed for the"
            " spread of the residuals"
        )
    low, high = np.quantile(errors, QUANTILES)
    return answers.task.model_copy(update={"residuals": (float(low), float(high))})


def bounded(spec: TaskSpec, outputs: np.ndarray) -> np.ndarray:
    """The bounds around each answer of a calibrated model, in the unit, (N, 2)."""
    return in_unit(spec, standardised(spec, outputs) + np.array(spec.residuals))


def settle(spec: TaskSpec, on_validation: Callable[[], Answers]) -> TaskSpec:
    """Nothing is decided."""
    return spec


def fault(outputs: np.ndarray) -> str:
    """Outputs must be finite."""
    return "" if np.isfinite(outputs).all() else "the model's outputs are not all finite; try a smaller learning_rate"


def one_answer(outputs: np.ndarray) -> bool:
    """Whether the model gives the same number for every example."""
    return len(outputs) > 1 and bool(np.ptp(outputs) <= 1e-6 * np.abs(outputs).max())


def _errors(a: Answers) -> np.ndarray:
    """The differences of answers from labels, standardised, (N,)."""
    return standardised(a.task, a.outputs[:, 0]) - standardised(a.task, a.labels)


def loss_of(answers: Answers) -> float:
    """The mean loss of the standardised values."""
    size = np.abs(_errors(answers))
    if answers.loss == "mae":
        return float(size.mean())
    if answers.loss == "huber":  # Keras' with delta 1
        return float(np.where(size <= 1, size**2 / 2, size - 0.5).mean())
    return float((size**2).mean())


def losses(answers: Answers) -> np.ndarray:
    """The squared standardised error."""
    return np.where(answers.is_known, _errors(answers) ** 2, np.nan)


def _r2(a: Answers) -> float | None:
    labels = standardised(a.task, a.labels)
    spread = float(((labels - labels.mean()) ** 2).sum())
    return 1 - float((_errors(a) ** 2).sum()) / spread if spread > 0 else None


def judge(answers: Answers) -> dict[str, Any]:
    """The figures of judged answers.

    Returns:
        `r2`: 1 - squared errors / squared distances of these labels from their mean, both of the transformed value
        (None where they are all the same). `skill`: the same with the distances from the mean of the training labels:
        0 knows nothing, 1 is perfect. `mae` and `rmse`: the mean absolute error and the root of the mean squared one,
        in the unit. `spearman`: the rank correlation (None where it is undefined). Of a calibrated model also
        `coverage`: the share of the labels that lie between the bounds; 0.95 is right.
    """
    from scipy.stats import spearmanr

    a, own = answers, answers.outputs[:, 0].astype(np.float64)
    of_constant = float((standardised(a.task, a.labels) ** 2).mean())
    differ = np.ptp(own) > 0 and np.ptp(a.labels) > 0
    between = np.array([])
    if a.task.residuals is not None:
        low, high = bounded(a.task, a.outputs).T
        between = (low <= a.labels) & (a.labels <= high)
    return {
        "r2": _r2(a),
        "skill": 1 - float((_errors(a) ** 2).mean()) / of_constant if of_constant > 0 else None,
        "mae": float(np.abs(own - a.labels).mean()),
        "rmse": float(np.sqrt(((own - a.labels) ** 2).mean())),
        "spearman": float(spearmanr(own, a.labels).statistic) if differ else None,
        **({"coverage": float(between.mean())} if len(between) else {}),
    }


def interval(answers: Answers) -> tuple[float, float]:
    """The bootstrap interval of `r2`."""
    return statistics.bootstrap(len(answers.labels), lambda examples: _r2(answers.at(examples)))


def utility(answers: Answers) -> np.ndarray:
    """Minus the squared standardised error."""
    return -losses(answers)


def confidence(outputs: np.ndarray) -> np.ndarray:
    """Nothing is known of it: 0."""
    return np.zeros(len(outputs))


def tables(answers: Answers) -> dict[str, Rows]:
    """`values`: label and answer of the first MOST_POINTS examples."""
    pairs = zip(answers.labels[:MOST_POINTS].tolist(), answers.outputs[:MOST_POINTS, 0].tolist(), strict=True)
    return {"values": [{"actual": actual, "predicted": predicted} for actual, predicted in pairs]}


def ideal(spec: TaskSpec, labels: np.ndarray) -> np.ndarray:
    """The labels themselves."""
    return labels.astype(np.float32)[:, None]


def drift(spec: TaskSpec, outputs: np.ndarray) -> float:
    """The distance of the mean answer from the mean training label, in training deviations, both transformed."""
    return float(abs(standardised(spec, outputs[:, 0]).mean()))


def decode(spec: TaskSpec, outputs: np.ndarray) -> list[dict[str, Any]]:
    """`value`, its `unit` where it has one and, of a calibrated model, `low` and `high`: 95 % lie between them."""
    unit = {} if spec.unit is None else {"unit": spec.unit}
    values = [{"value": value, **unit} for value in outputs[:, 0].tolist()]
    if spec.residuals is None:
        return values
    bounds = bounded(spec, outputs).tolist()
    return [{**value, "low": low, "high": high} for value, (low, high) in zip(values, bounds, strict=True)]


def caption(spec: TaskSpec, answer: Mapping[str, Any]) -> str:
    """`12.3 ms`."""
    return f"{answer['value']:.4g}" + (f" {spec.unit}" if spec.unit else "")


def truth(spec: TaskSpec, label: Any) -> float:
    """A finite number."""
    if isinstance(label, bool) or not isinstance(label, int | float) or not abs(label) <= sys.float_info.max:
        raise ValueError(f"{spec.name} is a value, a finite number, and not {label!r:.80}")
    return float(label)
