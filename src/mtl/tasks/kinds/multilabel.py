"""The kind `multilabel`: any of several names. Outputs are probabilities (N, K), one for each name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.config.params import PATH, Multilabel
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

LOSSES: tuple[LossName, ...] = ("binary_crossentropy",)
SCORES: Mapping[str, Goal] = {
    "map": "maximize",
    "skill": "maximize",
    "micro_f1": "maximize",
    "macro_f1": "maximize",
    "exact_match": "maximize",
}
ACTIVATIONS: tuple[str, ...] = ("sigmoid",)
OUTPUT: str = "probabilities"


def derive(name: str, task: Multilabel, tables: Mapping[Split, pa.Table]) -> tuple[TaskSpec, dict[Split, Targets]]:
    """Labels are columns that are each true or false, or the names in one column.

    Raises UserError where a value is neither 0 nor 1, true nor false; where a label has no known value in a split that
    needs one, or is always or never true in training; where a name occurs in validation or test alone.
    """
    available, place = tables["train"].column_names, f"{PATH}: tasks.{name}"
    if task.columns is not None:
        columns = [grouping.column_of(name, column, available) for column in task.columns]
        names: Sequence[str] = columns
        targets = {
            split: _joined([_booleans(table[column], f"{place}: column {column!r}, {split}") for column in columns])
            for split, table in tables.items()
        }
    else:
        columns = [grouping.column_of(name, task.column, available)]
        listed = {split: _listed(table[columns[0]], str(task.delimiter)) for split, table in tables.items()}
        names = sorted({label for labels in listed["train"] for label in labels or ()})
        for split, rows in listed.items():
            if strangers := sorted({label for labels in rows for label in labels or ()} - set(names)):
                raise UserError(
                    f"{place}: column {columns[0]!r}: {shorten(strangers)} in {split} alone, where no model could have"
                    " learned it"
                )
        targets = {split: _from_names(rows, names) for split, rows in listed.items()}
    shares = []
    for index, label in enumerate(names):
        of_label = {split: Targets(labels[:, index], known[:, index]) for split, (labels, known) in targets.items()}
        grouping.check_known(f"{place}: label {label!r}", of_label)
        share = float(of_label["train"].labels[of_label["train"].known].mean())
        if share in (0, 1):
            always = "always" if share else "never"
            raise UserError(f"{place}: label {label!r} is {always} true in training: nothing to learn; leave it out")
        shares.append(share)
    if not names:
        raise UserError(f"{place}: column {columns[0]!r} names no label in training")
    spec = TaskSpec(
        name=name,
        kind="multilabel",
        columns=tuple(columns),
        names=tuple(names),
        frequencies=tuple(shares),
        delimiter=task.delimiter,
    )
    return spec, targets


def _booleans(column: pa.ChunkedArray, place: str) -> Targets:
    """The values of a column, uint8 (N,). Raises UserError, whose message begins with `place` and the row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pc.utf8_lower(column.cast(pa.string()))
    known = pc.is_valid(texts).to_numpy()
    on = pc.fill_null(pc.is_in(texts, pa.array(["1", "true"])), False).to_numpy() & known
    off = pc.fill_null(pc.is_in(texts, pa.array(["0", "false"])), False).to_numpy() & known
    wrong = known & ~on & ~off
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"{place}, row {row + 1}: {column[row].as_py()!r:.40} is neither 0 nor 1, true nor false; what stands for a"
            " gap goes into data.missing"
        )
    return Targets(on.astype(np.uint8), known)


def _joined(columns: Sequence[Targets]) -> Targets:
    return Targets(*(np.stack(parts, axis=1) for parts in zip(*columns, strict=True)))


def _listed(column: pa.ChunkedArray, delimiter: str) -> list[list[str] | None]:
    """The names in each value of a column, None for a gap."""
    import pyarrow as pa

    values = column.cast(pa.string()).to_pylist()
    return [
        None if value is None else [name for part in value.split(delimiter) if (name := part.strip())]
        for value in values
    ]


def _from_names(rows: Sequence[Sequence[str] | None], names: Sequence[str]) -> Targets:
    index = {name: column for column, name in enumerate(names)}
    labels = np.zeros((len(rows), len(names)), np.uint8)
    for row, listed in enumerate(rows):
        labels[row, [index[name] for name in listed or ()]] = 1
    known = np.array([row is not None for row in rows], bool)
    return Targets(labels, np.repeat(known[:, None], len(names), axis=1))


def counts(spec: TaskSpec, targets: Targets) -> dict[str, Any]:
    """The number of examples for which each name is true."""
    numbers = ((targets.labels > 0) & targets.known).sum(axis=0).tolist()
    return dict(zip(spec.names, numbers, strict=True))


def carried(spec: TaskSpec, targets: Targets, gaps: bool) -> np.ndarray:
    """The labels, uint8 (N, K); with `gaps` (N, 2K)."""
    labels = targets.labels.astype(np.uint8, copy=False)
    return np.concatenate([labels, targets.known.astype(np.uint8)], axis=1) if gaps else labels


def width(head: Head) -> int:
    """The labels, and with gaps which of them are known."""
    return head.outputs * (1 + head.gaps)


def encode(labels: np.ndarray, head: Head) -> np.ndarray:
    """The labels themselves."""
    return labels.astype(np.float32)


def loss(name: LossName, label_smoothing: float, head: Head) -> keras.Loss:
    """Keras' binary cross-entropy, the mean over the outputs; that of an unknown label is 0."""
    import keras

    plain = keras.losses.BinaryCrossentropy(label_smoothing=label_smoothing)
    if not head.gaps:
        return plain

    class Known(keras.Loss):
        def call(self, y_true: Any, y_pred: Any) -> Any:
            labels, known = y_true[:, : head.outputs], y_true[:, head.outputs :]
            smooth = labels * (1 - label_smoothing) + label_smoothing / 2
            return keras.ops.mean(keras.ops.binary_crossentropy(smooth, y_pred) * known, axis=-1)

    return Known(name="known")


def accuracy(head: Head) -> PerExample:
    """The share of the outputs that are on the right side of one half."""
    import keras

    def of_examples(y_true: Any, y_pred: Any) -> Any:
        labels = y_true[:, : head.outputs]
        right = keras.ops.cast(keras.ops.equal(labels > 0.5, y_pred > 0.5), "float32")
        if not head.gaps:
            return keras.ops.mean(right, axis=-1)
        known = y_true[:, head.outputs :]
        return keras.ops.sum(right * known, axis=-1) / keras.ops.maximum(keras.ops.sum(known, axis=-1), 1)

    return of_examples


def constant(spec: TaskSpec) -> np.ndarray:
    """The frequency of each name."""
    return np.array(spec.frequencies)


def finish(model: keras.Model, spec: TaskSpec) -> keras.Model:
    """The model as it is."""
    return model


def finished(spec: TaskSpec, outputs: np.ndarray) -> np.ndarray:
    """The outputs as they are."""
    return outputs


def link(spec: TaskSpec, outputs: Any, xp: Any = np) -> Any:
    """The logarithms of the odds."""
    return xp.log(xp.clip(outputs, scores.TINY, 1.0)) - xp.log(xp.clip(1.0 - outputs, scores.TINY, 1.0))


def inverse_link(spec: TaskSpec, linked: Any, xp: Any = np) -> Any:
    """The logistic function."""
    return 0.5 + 0.5 * xp.tanh(0.5 * linked)


def calibrate(answers: Answers, temperature: Callable[[Answers], float]) -> TaskSpec:
    """The task with a temperature, one for all its labels."""
    return answers.task.model_copy(update={"temperature": temperature(answers)})


def settle(spec: TaskSpec, on_validation: Callable[[], Answers]) -> TaskSpec:
    """The task with a threshold for each name: the one with the best F1 on these examples, without them one half."""
    from sklearn.metrics import precision_recall_curve

    answers, thresholds = on_validation(), []
    for index in range(len(spec.names)):
        known = answers.is_known[:, index]
        labels, outputs = answers.labels[known, index], answers.outputs[known, index]
        if not labels.any():
            thresholds.append(0.5)
            continue
        precision, recall, edges = precision_recall_curve(labels, outputs)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        thresholds.append(float(edges[f1[:-1].argmax()]))
    return spec.model_copy(update={"thresholds": tuple(thresholds)})


def fault(outputs: np.ndarray) -> str:
    """Outputs must be probabilities."""
    if outputs.min() >= 0 and outputs.max() <= 1:  # so that NaN is refused too
        return ""
    return (
        f"the model's outputs are from {outputs.min():g} to {outputs.max():g} and must be probabilities, from 0 to 1;"
        " end its network in sigmoid"
    )


def one_answer(outputs: np.ndarray) -> bool:
    """Whether the model gives the same probabilities for every example."""
    return len(outputs) > 1 and bool((np.ptp(outputs, axis=0) <= 1e-6).all())


def said(spec: TaskSpec, outputs: np.ndarray) -> np.ndarray:
    """The names that are taken for true, bool (N, K)."""
    return outputs >= np.array(spec.thresholds or (0.5,) * len(spec.names), np.float32)


def _log_losses(outputs: np.ndarray, answers: Answers) -> np.ndarray:
    """-log p(label) of each label (N, K), in nats; `outputs` (N, K) or (K,)."""
    p = np.broadcast_to(outputs, answers.labels.shape).astype(np.float64).clip(scores.EPSILON, 1 - scores.EPSILON)
    return -np.log(np.where(answers.labels > 0, p, 1 - p))


def _cross_entropy(outputs: np.ndarray, answers: Answers) -> float:
    """The mean over the known labels of -log p(label), in nats; `outputs` (N, K) or (K,)."""
    return float(_log_losses(outputs, answers)[answers.is_known].mean())


def loss_of(answers: Answers) -> float:
    """The mean binary cross-entropy of the known labels, in nats."""
    return _cross_entropy(answers.outputs, answers)


def losses(answers: Answers) -> np.ndarray:
    """The mean binary cross-entropy of an example's known labels; with gaps their mean is not quite `loss_of`."""
    count = answers.is_known.sum(axis=1)
    total = (_log_losses(answers.outputs, answers) * answers.is_known).sum(axis=1)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)


def _average_precisions(a: Answers, weights: np.ndarray | None = None) -> list[float | None]:
    """The average precision of each name, None where no example is known for which it is true.

    As scikit-learn's, Σ (recall step · precision), but 25 times as fast where many samples of the same examples are
    judged: `weights` (N,) say how often each is in the sample.
    """
    weights = np.ones(len(a.labels)) if weights is None else weights
    values: list[float | None] = []
    for index in range(len(a.task.names)):
        order = np.argsort(-a.outputs[:, index], kind="stable")
        order = order[a.is_known[order, index]]
        ranked, last = a.outputs[order, index], np.ones(len(order), bool)
        last[:-1] = ranked[1:] != ranked[:-1]  # equal scores are one step
        hits = np.cumsum(weights[order] * (a.labels[order, index] > 0))[last]
        drawn = np.cumsum(weights[order])[last]
        if not len(hits) or hits[-1] == 0:
            values.append(None)
            continue
        precision = hits / np.maximum(drawn, 1e-12)
        values.append(float((np.diff(hits, prepend=0.0) * precision).sum() / hits[-1]))
    return values


def _map(a: Answers, weights: np.ndarray | None = None) -> float | None:
    values = [value for value in _average_precisions(a, weights) if value is not None]
    return float(np.mean(values)) if values else None


def _f1(labels: np.ndarray, answered: np.ndarray) -> np.ndarray:
    """F1 of booleans (N, K) by column; NaN where neither is ever true."""
    hits = (labels & answered).sum(axis=0)
    total = labels.sum(axis=0) + answered.sum(axis=0)
    return np.divide(2 * hits, total, out=np.full(hits.shape, np.nan), where=total > 0)


def judge(answers: Answers) -> dict[str, Any]:
    """The figures of judged answers, on the labels that are known.

    Returns:
        `map`: mean average precision, over the names that are true of some example. `micro_f1` and `macro_f1` at the
        task's thresholds: of all labels together, and the mean over the names. `exact_match`: the share of the
        examples with every known label right. `skill`: 1 - cross-entropy / that of always answering with the training
        frequencies: 0 knows nothing, 1 is perfect. `ece`: the expected calibration error of all probabilities.
    """
    a, known = answers, answers.is_known
    labels, answered = (a.labels > 0) & known, said(a.task, a.outputs) & known
    by_name = _f1(labels, answered)
    micro = _f1(labels.reshape(-1, 1), answered.reshape(-1, 1))[0]
    right = (labels == answered) | ~known
    return {
        "map": _map(a),
        "skill": 1 - loss_of(a) / _cross_entropy(np.array(a.task.frequencies), a),
        "micro_f1": None if np.isnan(micro) else float(micro),
        "macro_f1": None if np.isnan(by_name).all() else float(np.nanmean(by_name)),
        "exact_match": float(right.all(axis=1).mean()),
        "ece": statistics.calibration_error(_reliability(a)),
    }


def interval(answers: Answers) -> tuple[float, float]:
    """The bootstrap interval of `map`."""
    count = len(answers.labels)
    return statistics.bootstrap(count, lambda drawn: _map(answers, np.bincount(drawn, minlength=count).astype(float)))


def utility(answers: Answers) -> np.ndarray:
    """The share of the known labels that are right."""
    right = (said(answers.task, answers.outputs) == (answers.labels > 0)) & answers.is_known
    count = answers.is_known.sum(axis=1)
    return np.divide(right.sum(axis=1), count, out=np.full(len(count), np.nan), where=count > 0)


def confidence(outputs: np.ndarray) -> np.ndarray:
    """The mean distance of the probabilities from one half, doubled."""
    return np.abs(2 * outputs.astype(np.float64) - 1).mean(axis=1)


def _reliability(a: Answers) -> Rows:
    return statistics.reliability(a.outputs[a.is_known].astype(np.float64), a.labels[a.is_known] > 0)


def tables(answers: Answers) -> dict[str, Rows]:
    """`reliability` of all probabilities, and `per_label`: average precision, F1, threshold and counts of each name."""
    a, known = answers, answers.is_known
    labels, answered = (a.labels > 0) & known, said(a.task, a.outputs) & known
    f1, precisions = _f1(labels, answered), _average_precisions(a)
    rows = [
        {
            "label": label,
            "examples": int(known[:, k].sum()),
            "true": int(labels[:, k].sum()),
            "average_precision": precisions[k],
            "f1": None if np.isnan(f1[k]) else float(f1[k]),
            "threshold": (a.task.thresholds or (0.5,) * len(a.task.names))[k],
        }
        for k, label in enumerate(a.task.names)
    ]
    return {"reliability": _reliability(a), "per_label": rows}


def ideal(spec: TaskSpec, labels: np.ndarray) -> np.ndarray:
    """Probability 1 of the names that are true, 0 of the others."""
    return labels.astype(np.float32)


def drift(spec: TaskSpec, outputs: np.ndarray) -> float:
    """The mean over the names of how far the share of answers with it is from its frequency: 0 to 1."""
    return float(np.abs(said(spec, outputs).mean(axis=0) - np.array(spec.frequencies)).mean())


def decode(spec: TaskSpec, outputs: np.ndarray) -> list[dict[str, Any]]:
    """`labels`, the names taken for true, and the probability of each name, `probabilities`."""
    return [
        {
            "labels": [name for name, on in zip(spec.names, row, strict=True) if on],
            "probabilities": dict(zip(spec.names, values, strict=True)),
        }
        for row, values in zip(said(spec, outputs), outputs.tolist(), strict=True)
    ]


def caption(spec: TaskSpec, answer: Mapping[str, Any]) -> str:
    """`scratch, dent`, or `none`."""
    return ", ".join(answer["labels"]) or "none"


def truth(spec: TaskSpec, label: Any) -> list[str]:
    """A list of the names that are true."""
    if not isinstance(label, list) or not all(name in spec.names for name in label):
        raise ValueError(f"{spec.name} takes a list of the names that are true, of {shorten(spec.names)}")
    return [name for name in spec.names if name in label]
