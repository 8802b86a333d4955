"""The kind `classes`: one of several names. Outputs are probabilities (N, K)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.config.params import Classes
from mtl.config.recipes import LossName
from mtl.errors import UserError
from mtl.tasks import grouping, scores, statistics
from mtl.tasks.answers import Answers
from mtl.tasks.columns import Split
from mtl.tasks.kinds import Goal, PerExample, Rows
from mtl.tasks.spec import TaskSpec, shorten
from mtl.tasks.targets import Head, Targets

if TYPE_CHECKING:
    import keras
    import pyarrow as pa

LOSSES: tuple[LossName, ...] = ("categorical_crossentropy", "binary_crossentropy")
SCORES: Mapping[str, Goal] = {
    "acc": "maximize",
    "balanced_acc": "maximize",
    "macro_f1": "maximize",
    "skill": "maximize",
    "auc": "maximize",
    "average_precision": "maximize",
}
ACTIVATIONS: tuple[str, ...] = ("softmax", "sigmoid")
OUTPUT: str = "probabilities"

ROUNDING = 1e-5  # a float32 softmax may be that much above 1
MOST_IN_CONFUSION = 100  # classes; a matrix of more can be neither drawn nor read


def derive(name: str, task: Classes, tables: Mapping[Split, pa.Table]) -> tuple[TaskSpec, dict[Split, Targets]]:
    """Labels are the values of a column, or groups of them: `grouping.derive`."""
    column = grouping.column_of(name, task.column, tables["train"].column_names)
    return grouping.derive(name, task, column, {split: table[column] for split, table in tables.items()})


def counts(spec: TaskSpec, targets: Targets) -> dict[str, Any]:
    """The number of examples of each name."""
    numbers = np.bincount(targets.labels[targets.known], minlength=len(spec.names)).tolist()
    return dict(zip(spec.names, numbers, strict=True))


def carried(spec: TaskSpec, targets: Targets, gaps: bool) -> np.ndarray:
    """The labels, (N,); with `gaps` (N, 2)."""
    return np.stack(targets, axis=1) if gaps else targets.labels


def width(head: Head) -> int:
    """The label, and with gaps whether it is known."""
    return 1 + head.gaps


def encode(labels: np.ndarray, head: Head) -> np.ndarray:
    """One-hot labels, (N, K); a row of zeros where the label is unknown."""
    targets = np.zeros((len(labels), head.outputs), np.float32)
    targets[np.arange(len(labels)), labels[:, 0].astype(int)] = labels[:, 1] if head.gaps else 1
    return targets


def loss(name: LossName, label_smoothing: float, head: Head) -> keras.Loss:
    """A cross-entropy of Keras; weighted by class, and 0 for an unknown label."""
    import keras

    losses = {
        "categorical_crossentropy": keras.losses.CategoricalCrossentropy,
        "binary_crossentropy": keras.losses.BinaryCrossentropy,
    }
    plain = losses[name](label_smoothing=label_smoothing)
    if head.class_weights is None and not head.gaps:
        return plain
    weights = head.class_weights or (1.0,) * head.outputs

    class Weighted(keras.Loss):
        def call(self, y_true: Any, y_pred: Any) -> Any:
            # The targets are one-hot here: the loss itself smooths them.
            of_class = keras.ops.convert_to_tensor(weights, y_true.dtype)
            return plain.call(y_true, y_pred) * keras.ops.sum(y_true * of_class, axis=-1)

    return Weighted(name="weighted")


def accuracy(head: Head) -> PerExample:
    """1 where the largest output is that of the label."""
    import keras

    return keras.metrics.categorical_accuracy


def constant(spec: TaskSpec) -> np.ndarray:
    """The class frequencies."""
    return np.array(spec.frequencies)


def finish(model: keras.Model, spec: TaskSpec) -> keras.Model:
    """The model as it is."""
    return model


def finished(spec: TaskSpec, outputs: np.ndarray) -> np.ndarray:
    """The outputs as they are."""
    return outputs


def link(spec: TaskSpec, outputs: Any, xp: Any = np) -> Any:
    """The logarithms of the probabilities."""
    return xp.log(xp.clip(outputs, scores.TINY, 1.0))


def inverse_link(spec: TaskSpec, linked: Any, xp: Any = np) -> Any:
    """Softmax."""
    powers = xp.exp(linked - xp.max(linked, axis=-1, keepdims=True))
    return powers / xp.sum(powers, axis=-1, keepdims=True)


def calibrate(answers: Answers, temperature: Callable[[Answers], float]) -> TaskSpec:
    """The task with a temperature, of answers to examples of every class."""
    names = answers.task.names
    if lacking := [name for k, name in enumerate(names) if not (answers.labels == k).any()]:
        raise UserError(f"no validation image of {shorten(lacking)}")
    return answers.task.model_copy(update={"temperature": temperature(answers)})


def settle(spec: TaskSpec, on_validation: Callable[[], Answers]) -> TaskSpec:
    """Nothing is decided."""
    return spec


def fault(outputs: np.ndarray) -> str:
    """Outputs must be probabilities."""
    low, high = outputs.min(), outputs.max()
    if low >= 0 and high <= 1 + ROUNDING:  # so that NaN is refused too
        return ""
    return (
        f"the model's outputs are from {low:g} to {high:g} and must be probabilities, from 0 to 1;"
        " end its network in softmax or sigmoid"
    )


def predicted(outputs: np.ndarray) -> np.ndarray:
    """The label that the model names for each example, int (N,)."""
    return outputs.argmax(axis=1)


def confidence(outputs: np.ndarray) -> np.ndarray:
    """The probability of that label where the row is normalised to sum to one, float64 (N,)."""
    return scores.normalise(outputs).max(axis=1)


def right(answers: Answers) -> np.ndarray:
    """The examples that the model answers rightly, bool (N,); where the right label is unknown, False."""
    return (predicted(answers.outputs) == answers.labels) & answers.is_known


def one_answer(outputs: np.ndarray) -> bool:
    """Whether the model names the same label for every example."""
    return len(np.unique(predicted(outputs))) == 1


def loss_of(answers: Answers) -> float:
    """The mean cross-entropy in nats."""
    name = "categorical_crossentropy" if answers.loss == "auto" else answers.loss
    return scores.loss(answers.outputs, answers.labels, name)


def losses(answers: Answers) -> np.ndarray:
    """Minus the logarithm of the label's probability."""
    return np.where(answers.is_known, scores.log_losses(answers.outputs, answers.labels), np.nan)


def judge(answers: Answers) -> dict[str, Any]:
    """The figures of judged answers.

    Returns:
        `acc`; `nll`; `nll_ratio`, the nll divided by that of always answering with the class frequencies of these
        labels (None where they are of one class); `ece`, the expected calibration error; and those of
        `scores.of_classes`: `balanced_acc`, `macro_f1`, `skill` and, of two classes, `auc` and `average_precision`.
    """
    a = answers
    nll, of_frequencies = scores.nll(a.outputs, a.labels), statistics.nll_of_frequencies(a.labels)
    return {
        "acc": scores.accuracy(a.outputs, a.labels),
        "nll": nll,
        "nll_ratio": nll / of_frequencies if of_frequencies > 0 else None,
        "ece": statistics.calibration_error(_reliability(a)),
        **scores.of_classes(a.outputs, a.labels, a.task.frequencies),
    }


def interval(answers: Answers) -> tuple[float, float]:
    """Wilson's interval of the accuracy."""
    rights = right(answers)
    return statistics.wilson(rights.sum(), len(rights))


def utility(answers: Answers) -> np.ndarray:
    """1 for a right answer, else 0."""
    return np.where(answers.is_known, right(answers).astype(float), np.nan)


def _reliability(a: Answers) -> Rows:
    return statistics.reliability(confidence(a.outputs), right(a))


def tables(answers: Answers) -> dict[str, Rows]:
    """`reliability`, `per_class`, and up to MOST_IN_CONFUSION classes `confusion`."""
    a, names, answered = answers, answers.task.names, predicted(answers.outputs)
    rows = {"reliability": _reliability(a), "per_class": statistics.per_class(a.labels, answered, names)}
    if len(names) <= MOST_IN_CONFUSION:
        rows["confusion"] = statistics.confusion(a.labels, answered, names)
    return rows


def ideal(spec: TaskSpec, labels: np.ndarray) -> np.ndarray:
    """All probability on the label."""
    return np.eye(len(spec.names), dtype=np.float32)[labels]


def drift(spec: TaskSpec, outputs: np.ndarray) -> float:
    """The Jensen-Shannon distance, base 2, of the names answered from the frequencies: 0 to 1."""
    from scipy.spatial.distance import jensenshannon

    counts = np.bincount(predicted(outputs), minlength=len(spec.names))
    return float(jensenshannon(counts, np.array(spec.frequencies), base=2))


def decode(spec: TaskSpec, outputs: np.ndarray) -> list[dict[str, Any]]:
    """`label` and its `probability`, as the network gives it."""
    best = predicted(outputs)
    values = outputs[np.arange(len(outputs)), best].tolist()
    return [{"label": spec.names[k], "probability": value} for k, value in zip(best, values, strict=True)]


def caption(spec: TaskSpec, answer: Mapping[str, Any]) -> str:
    """`cat 98 %`."""
    return f"{answer['label']} {answer['probability']:.0%}"


def truth(spec: TaskSpec, label: Any) -> str:
    """One of the task's names."""
    if not isinstance(label, str) or label not in spec.names:
        raise ValueError(f"{spec.name} has no label {label!r:.80}; it has {shorten(spec.names)}")
    return label
