"""TaskSpec: all that is known of a task once its labels are derived."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, JsonValue, ValidationError

from mtl import files
from mtl.config.reading import first_line
from mtl.config.settings import Settings
from mtl.errors import UserError

KEY = "task"  # of metadata.json in a `.keras` file
SHOWN = 10  # names in a message


class TaskSpec(Settings):
    """All that is known of a task: its kind, what its answers mean, and the statistics of its training labels.

    It is written to data/labels/<task>/task.json, and into the metadata.json of the task's `.keras` file, from where
    everything that has the model alone reads it.

    Attributes:
        name: the task.
        kind: what an answer is: `classes`, one of `names`; `multilabel`, any of `names`; `value`, a number; or a
            person's own, `module:object`.
        columns: the columns of the data set that its labels are derived from; of `classes` and `value` one.
        names: the names of the outputs, in their order; of `value` its column.
        groups: of `classes`: for each value of the column the name that stands for it.
        frequencies: the share of each name among the training labels that are known, float64 (K,): of `classes` their
            sum is 1; of `multilabel` the share of the examples for which it is true; of `value` empty.
        thresholds: of `multilabel`, in a model: the probability from which on each name is taken for true, (K,).
        delimiter: of `multilabel`: what stands between the names in its one column.
        unit: of `value`, for people.
        transform: of `value`: `log`, where the network learns the natural logarithm.
        mean, deviation: of `value`: of the training labels that are known, transformed.
        temperature: of `classes` and `multilabel`, in a calibrated model: what divided the logarithms of its
            probabilities, or of their odds.
        residuals: of `value`, in a calibrated model: the bounds of 95 % of label minus answer on the validation
            examples, standardised.
        options: of a person's own kind, whatever it keeps.
    """

    name: str
    kind: Annotated[str, Field(min_length=1)] = "classes"
    columns: Annotated[tuple[str, ...], Field(min_length=1)]
    names: Annotated[tuple[str, ...], Field(min_length=1)]
    groups: dict[str, str] = Field(default_factory=dict)
    frequencies: tuple[float, ...] = ()
    thresholds: tuple[float, ...] | None = None
    delimiter: str | None = None
    unit: str | None = None
    transform: Literal["log"] | None = None
    mean: float | None = None
    deviation: float | None = None
    temperature: Annotated[float, Field(gt=0)] | None = None
    residuals: tuple[float, float] | None = None
    options: dict[str, JsonValue] | None = None

    def document(self) -> dict[str, Any]:
        """The task as JSON, without what its kind does not have."""
        return self.model_dump(mode="json", exclude_none=True)

    def differs(self, other: TaskSpec) -> str:
        """The difference of another task's answers from these, in words; empty where they mean the same."""
        if (self.kind, self.names, self.transform) == (other.kind, other.names, other.transform):
            return ""
        if self.kind != other.kind:
            return f"answers a task of the kind {other.kind} and the labels are {self.kind}"
        return f"tells {shorten(other.names)} apart and the labels are {shorten(self.names)}"


def shorten(names: Sequence[str]) -> str:
    """List the first names, and the number of all where there are more."""
    return ", ".join(names[:SHOWN]) + (f" … ({len(names)})" if len(names) > SHOWN else "")


def parse(content: Any, where: str) -> TaskSpec:
    """Validate parsed JSON as a task; raises UserError, whose message begins with `where`."""
    try:
        return TaskSpec.model_validate(content)
    except ValidationError as error:
        raise UserError(
            f"{where}: not a task of this version: {first_line(error)}; `dvc repro` writes it anew"
        ) from None


def read(path: Path) -> TaskSpec:
    """Read a task.json. Raises UserError where it is missing or no task."""
    return parse(files.read_json(path), str(path))


def read_from_model(path: Path) -> TaskSpec:
    """Read the task that a `.keras` file answers. Raises UserError where it does not say."""
    try:
        with zipfile.ZipFile(path) as archive:
            metadata = json.loads(archive.read("metadata.json"))
    except (OSError, ValueError, KeyError, RecursionError, zipfile.BadZipFile):  # Keras does not read the file's JSON
        metadata = None
    if not isinstance(metadata, dict) or KEY not in metadata:
        raise UserError(
            f"{path} does not say which task it answers, as models of this version do; `dvc repro` trains it anew"
        )
    return parse(metadata[KEY], str(path))


def label_dtype(count: int) -> type[np.uint8] | type[np.uint16]:
    """The type that labels from 0 to `count` - 1 are stored in."""
    return np.uint8 if count <= 256 else np.uint16
