"""Kinds of tasks: what an answer is. Each is one module, and everything else asks it.

A further kind is a module with what `Kind` names, an entry in `find`, a type of its own in `config.params`, and its
columns of the joint model in `tracking.joint` and `tracking.flavors`. A person's own, `module:object`, needs none of
these.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from mtl.config.recipes import LossName
from mtl.errors import UserError
from mtl.tasks import own
from mtl.tasks.answers import Answers
from mtl.tasks.columns import Split
from mtl.tasks.scores import OF_TWO_CLASSES
from mtl.tasks.spec import TaskSpec
from mtl.tasks.targets import Head, Targets

if TYPE_CHECKING:
    import keras
    import pyarrow as pa

Rows = list[dict[str, Any]]
_WAY = {"maximize": "larger", "minimize": "smaller"}
Goal = Literal["maximize", "minimize"]
PerExample = Callable[[Any, Any], Any]  # of targets and outputs, Keras tensors (N, ·), to a tensor (N,)


class Kind(Protocol):
    """What the rest of the project asks of a kind.

    Attributes:
        LOSSES: the losses that it can be trained with; the first is the default.
        SCORES: the scores that a gate or a search may ask for, and which way is better; the first is the primary one,
            and `skill` is among them.
        ACTIVATIONS: of the output layer; the first is the default.
        OUTPUT: the name of the outputs in exports and protocols.
    """

    LOSSES: tuple[LossName, ...]
    SCORES: Mapping[str, Goal]
    ACTIVATIONS: tuple[str, ...]
    OUTPUT: str

    def derive(self, name: str, task: Any, tables: Mapping[Split, pa.Table]) -> tuple[TaskSpec, dict[Split, Targets]]:
        """Derive a task and its labels from the columns of each split. UserError names the column, and the row.

        The task is that of the training labels; the labels are of every split in `tables`, `shifted` may be one.
        """

    def counts(self, spec: TaskSpec, targets: Targets) -> dict[str, Any]:
        """The content of some labels, in numbers."""

    def carried(self, spec: TaskSpec, targets: Targets, gaps: bool) -> np.ndarray:
        """The labels as a feed carries them, (N,) or (N, width); with `gaps` also which of them are known."""

    def width(self, head: Head) -> int:
        """The columns of a head's labels, as a feed carries them."""

    def encode(self, labels: np.ndarray, head: Head) -> np.ndarray:
        """The targets of the loss, float32 (N, ·), of labels (N, width)."""

    def loss(self, name: LossName, label_smoothing: float, head: Head) -> keras.Loss:
        """The loss of a head, by one of LOSSES."""

    def accuracy(self, head: Head) -> PerExample | None:
        """The accuracy of each example, for learning curves; None where the kind has none."""

    def constant(self, spec: TaskSpec) -> np.ndarray:
        """The best answer without looking at an example, (K,), by the training labels: that of skill 0."""

    def finish(self, model: keras.Model, spec: TaskSpec) -> keras.Model:
        """The model that is saved: with what turns the outputs that were trained into answers."""

    def finished(self, spec: TaskSpec, outputs: np.ndarray) -> np.ndarray:
        """What the layers that `finish` puts on make of outputs (N, K)."""

    def link(self, spec: TaskSpec, outputs: Any, xp: Any = np) -> Any:
        """Answers (N, K) on the scale on which they are averaged, tempered and combined: of probabilities logarithms.

        The link function of a generalised linear model; `inverse_link` undoes it. `xp` is the module that computes:
        numpy, or keras.ops.
        """

    def inverse_link(self, spec: TaskSpec, linked: Any, xp: Any = np) -> Any:
        """The answers (N, K) of what `link` returns, or of a weighted sum of such."""

    def calibrate(self, answers: Answers, temperature: Callable[[Answers], float]) -> TaskSpec:
        """The task with what makes its answers as sure as they are right, by judged answers to validation examples.

        `temperature` is that of the least loss. Raises UserError where the examples do not allow it.
        """

    def settle(self, spec: TaskSpec, on_validation: Callable[[], Answers]) -> TaskSpec:
        """The task with what is decided by the answers to the validation examples, of which there may be none."""

    def fault(self, outputs: np.ndarray) -> str:
        """The fault of outputs (N, K) that cannot be answers, in words; empty where they can."""

    def one_answer(self, outputs: np.ndarray) -> bool:
        """Whether the answer is the same for every example: the training collapsed."""

    def loss_of(self, answers: Answers) -> float:
        """The loss that the recipe names, without label smoothing."""

    def losses(self, answers: Answers) -> np.ndarray:
        """The kind's first loss of each answer, float64 (N,); NaN where no label is known."""

    def judge(self, answers: Answers) -> dict[str, Any]:
        """All figures by name, the primary score first; None where one is undefined."""

    def interval(self, answers: Answers) -> tuple[float, float]:
        """The 95 % interval of the primary score."""

    def utility(self, answers: Answers) -> np.ndarray:
        """How good each answer is, float64 (N,), at most 1; NaN where no label is known."""

    def confidence(self, outputs: np.ndarray) -> np.ndarray:
        """How sure the model is of each answer, (N,): of two equally bad ones the surer is worth a look first."""

    def tables(self, answers: Answers) -> dict[str, Rows]:
        """The tables that `dvc plots` draws, by the folder that they go to."""

    def ideal(self, spec: TaskSpec, labels: np.ndarray) -> np.ndarray:
        """The outputs of a model that is always right, float32 (N, K), on examples with these labels."""

    def drift(self, spec: TaskSpec, outputs: np.ndarray) -> float:
        """The distance of what the model answers to some examples, N at least 1, from the training labels; 0: none."""

    def decode(self, spec: TaskSpec, outputs: np.ndarray) -> list[dict[str, Any]]:
        """An answer per example, as JSON. Its first entry is the answer proper, of the form that `truth` returns."""

    def caption(self, spec: TaskSpec, answer: Mapping[str, Any]) -> str:
        """An answer of `decode` in a few words."""

    def truth(self, spec: TaskSpec, label: Any) -> Any:
        """The label that feedback tells as JSON, as `decode` would write it; ValueError says what would be right.

        A number is compared with the answer by its distance, anything else is right where it is the same.
        """


def find(name: str) -> Kind:
    """The kind called `name`, or a person's own, `module:object`; UserError where there is none, or it lacks a part."""
    from mtl.tasks.kinds import classes, multilabel, value

    kinds: dict[str, Kind] = {"classes": classes, "multilabel": multilabel, "value": value}
    if name in kinds:
        return kinds[name]
    if ":" not in name:
        raise UserError(f"unknown kind {name!r}; known: {', '.join(kinds)}, or your own as module:object")
    kind = own.find(name, "kind")
    if lacks := [part for part in (*Kind.__annotations__, *vars(Kind)) if part[0] != "_" and not hasattr(kind, part)]:
        raise UserError(f"kind {name!r} has no {', '.join(lacks)}; mtl.tasks.kinds.Kind says what a kind has")
    return kind


def find_imported(name: str, place: str) -> Kind:
    """`find` for a kind that a model names, which never decides what is imported.

    Raises UserError, whose message begins with `place`, where it is unknown, or the module of a person's own was not
    imported.
    """
    module, colon, _ = name.partition(":")
    if colon and module not in sys.modules:
        raise UserError(f"{place} is of the kind {name}, whose module was not imported; {own.how_to_import(module)}")
    try:
        return find(name)
    except UserError as error:
        raise UserError(f"{place}: {error}") from None


def summary(answers: Answers) -> dict[str, float]:
    """`loss` and the primary score of judged answers; the score is left out where it is undefined."""
    kind = find(answers.task.kind)
    primary = next(iter(kind.SCORES))
    value = kind.judge(answers)[primary]
    return {"loss": kind.loss_of(answers)} | ({} if value is None else {primary: value})


def fault_of_score(spec: TaskSpec, name: str, goal: Goal) -> str:
    """The reason why a score of a task cannot be asked for, with `goal` the better way; empty where it can."""
    scores = find(spec.kind).SCORES
    if name not in scores:
        return f"{spec.name} is of the kind {spec.kind}, which has no such score; take {' or '.join(scores)}"
    if spec.kind == "classes" and name in OF_TWO_CLASSES and len(spec.names) != 2:
        return f"this score is of two classes, and {spec.name} has {len(spec.names)}; take balanced_acc or macro_f1"
    return "" if scores[name] == goal else f"{goal} makes this score worse: it is better the {_WAY[scores[name]]} it is"
