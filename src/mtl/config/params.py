"""params.yaml as frozen, validated types. This is the only reader of the file."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from mtl.config import addresses
from mtl.config.gate import Gate
from mtl.config.reading import read_as
from mtl.config.recipes import Recipe
from mtl.config.settings import Settings, like
from mtl.config.tune import Tune
from mtl.errors import UserError

PATH = Path("params.yaml")
ORDER = Path("data/tasks.json")  # what check_params writes: `Params.group_order`

SHIFTED = "data/shifted"  # where a second test set may be; in every clone, without one
MAX_CLASSES = 65_536  # labels are numbers of 16 bits

# Names that the files, experiments and routes of the project use themselves.
RESERVED = frozenset(
    [
        "load_data",
        "derive_labels",
        "train",
        "main_evaluate",
        "study",
        "joint",
        "tune",
        "tasks",
        "plots",
        "v1",
        "v2",
        "predict",
        "feedback",
        "metrics",
        "docs",
        "openapi",
        "ping",
        "health",
        "version",
        "invocations",
        "redoc",
        "static",
        "samples",
        "models",
        "raw",
        "labels",
    ]
)


def _check_portion(value: object) -> object:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if not is_count and not (isinstance(value, float) and 0 <= value < 1):
        raise ValueError(f"must be a number of examples, such as 5000, or a fraction, such as 0.1, not {value!r}")
    return value


# A number of examples, or a fraction of them.
Portion = Annotated[
    int | float,
    BeforeValidator(_check_portion),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "number", "minimum": 0, "exclusiveMaximum": 1}]}
    ),
]
AnswerName = Literal["own", "derived", "combined"]
ColumnType = Literal["text", "integer", "number", "boolean"]
ColumnName = Annotated[str, Field(min_length=1)]
Name = Annotated[str, like(r"[a-z][a-z0-9_]*", "a name of small letters, digits and _, a letter first")]


class Data(Settings):
    """Where the images come from and what is held out of them."""

    @field_validator("path", "shifted")
    @classmethod
    def _has_no_secret(cls, path: str) -> str:
        if fault := addresses.fault(path):
            raise ValueError(fault)
        return path

    @field_validator("path", "shifted")
    @classmethod
    def _is_apart_from_the_outputs(cls, path: str) -> str:
        if Path("data/raw").absolute().is_relative_to(os.path.normpath(Path(path).absolute())):
            raise ValueError(f"{path!r} holds the outputs of the stages; use a folder of its own, like data/external")
        return path

    @model_validator(mode="after")
    def _shifted_is_apart(self) -> Data:
        path, shifted = (Path(os.path.normpath(Path(name).absolute())) for name in (self.path, self.shifted))
        if path.is_relative_to(shifted) or shifted.is_relative_to(path):
            raise ValueError(f"path and shifted, {self.path!r} and {self.shifted!r}, overlap; use two folders")
        return self

    source: Literal["cifar10", "folder", "generated", "table", "tfrecord"]
    path: Annotated[str, like(r"[^\x00-\x1f]+", "a path, such as data/external")]
    shifted: Annotated[str, like(r"[^\x00-\x1f]+", "a path, such as data/shifted")] = SHIFTED  # of a second test set
    table: str | None = None  # of a table: the CSV or Parquet file in path; None: the only one
    image: str | None = None  # of a table: the column with the paths of the images; None: by its name
    size: Annotated[int, Field(ge=4, le=4096)] | None = None
    validation: Portion
    test: Portion | None = None  # of a table without the column `split`
    stratify: str | None = None  # a column whose values are shared out evenly, where the data set is split here
    group: str | None = None  # a column: examples of one value are all in one split
    missing: tuple[str, ...] | dict[str, tuple[str, ...]] = ("",)  # what stands for a gap, in all columns or by column
    types: dict[str, ColumnType] = Field(default_factory=dict)  # of columns, where the inferred one is not right
    duplicates: Literal["warn", "refuse"] = "warn"  # identical images in train and test, or of several values
    cache: Annotated[int, Field(ge=0)] = 256  # of tfrecord: up to so many MiB of images in memory, more are streamed


class Classes(Settings):
    """A task of the kind `classes`, one of several: a column of the data set, and groups of its values.

    Attributes:
        column: None: the only column of the data set.
        labels: None: the values themselves.
        recipe: a name under `recipes`.
        answer: what answers: the task's own model, the model of another task that implies its answer, or both together.
    """

    kind: Literal["classes"] = "classes"
    column: ColumnName | None = None
    labels: dict[Annotated[str, Field(min_length=1)], tuple[str, ...]] | None = None
    recipe: str
    answer: AnswerName = "own"

    @field_validator("labels")
    @classmethod
    def _groups_are_disjoint(cls, labels: dict[str, tuple[str, ...]] | None) -> dict[str, tuple[str, ...]] | None:
        if labels is None:
            return labels
        if not 2 <= len(labels) <= MAX_CLASSES:
            raise ValueError(f"{len(labels)} group(s); a task tells between 2 and {MAX_CLASSES:,} groups apart")
        for group, classes in labels.items():
            if not classes:
                raise ValueError(f"group {group!r} is empty; name at least one class in it")
        twice = [name for name, count in Counter(sum(labels.values(), ())).items() if count > 1]
        if twice:
            groups = [group for group, classes in labels.items() if twice[0] in classes]
            raise ValueError(f"class {twice[0]!r} is listed twice (in {', '.join(groups)}); list it once")
        return labels


class Multilabel(Settings):
    """A task of the kind `multilabel`, any of several: columns that are each true or false, or one column of names.

    Attributes:
        columns: a column for each label; 0 and 1, or true and false.
        column: instead of `columns`: a column with the names of the labels that are true.
        delimiter: what stands between the names in `column`.
        recipe: a name under `recipes`.
        answer: what answers: the task's own model, the model of another task that implies its answer, or both together.
    """

    kind: Literal["multilabel"]
    columns: Annotated[tuple[ColumnName, ...], Field(min_length=1)] | None = None
    column: ColumnName | None = None
    delimiter: Annotated[str, Field(min_length=1)] | None = None
    recipe: str
    answer: AnswerName = "own"

    @model_validator(mode="after")
    def _has_one_source(self) -> Multilabel:
        if (self.columns is None) == (self.column is None):
            raise ValueError("give either columns: [a, b], each true or false, or column: and delimiter:")
        if (self.column is None) != (self.delimiter is None):
            raise ValueError("column: of names needs delimiter:, what stands between them, and columns: has none")
        if self.columns is not None and len(set(self.columns)) < len(self.columns):
            raise ValueError("columns: one of them is listed twice; list it once")
        return self


class Value(Settings):
    """A task of the kind `value`: a column of numbers.

    Attributes:
        column: None: the only column of the data set.
        transform: log: the network learns the natural logarithm, for numbers above 0 with a long tail.
        unit: of the column, for people.
        recipe: a name under `recipes`.
        answer: what answers: the task's own model, the model of another task that implies its answer, or both together.
    """

    kind: Literal["value"]
    column: ColumnName | None = None
    transform: Literal["log"] | None = None
    unit: Annotated[str, Field(min_length=1, max_length=20)] | None = None
    recipe: str
    answer: AnswerName = "own"


class OwnKind(Settings):
    """A task of a person's own kind, `module:object`: its columns, and whatever else the kind asks for.

    Attributes:
        columns: of the data set.
        options: what the kind makes of them.
        recipe: a name under `recipes`.
    """

    kind: Annotated[str, like(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", "a kind, or your own as module:object")]
    columns: Annotated[tuple[ColumnName, ...], Field(min_length=1)]
    options: dict[str, JsonValue] = Field(default_factory=dict)
    recipe: str


def _kind(task: object) -> str:
    """The tag of a task's type."""
    kind = task.get("kind", "classes") if isinstance(task, dict) else getattr(task, "kind", "classes")
    return "own" if ":" in str(kind) else str(kind)


Task = Annotated[
    Annotated[Classes, Tag("classes")]
    | Annotated[Multilabel, Tag("multilabel")]
    | Annotated[Value, Tag("value")]
    | Annotated[OwnKind, Tag("own")],
    Discriminator(
        _kind,
        custom_error_type="kind",
        custom_error_message="unknown kind; use classes, multilabel, value, or your own as module:object",
    ),
]


class Hardware(Settings):
    """What the training runs on; `threads` is part of the result, so it is never taken from the machine."""

    threads: Annotated[int, Field(ge=1, le=1024)]
    strategy: Literal["auto", "one_device", "mirrored", "multi_worker", "tpu"]
    wait_seconds: Annotated[int, Field(ge=1, le=86_400)] = 300  # for the other workers of `multi_worker` to come

    @field_validator("strategy", mode="before")
    @classmethod
    def _is_supported(cls, strategy: object) -> object:
        if strategy == "parameter_server":
            raise ValueError(
                "parameter_server: Keras 3 does not support it; use multi_worker, one model on all machines"
            )
        return strategy


class Params(Settings):
    """All of params.yaml."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    data: Data
    tasks: Annotated[dict[Name, Task], Field(min_length=1)]
    hardware: Hardware
    recipes: dict[Name, Recipe]
    promote: Gate | None = None
    tune: Tune | None = None

    @model_validator(mode="after")
    def _tasks_fit(self) -> Params:
        for name, task in self.tasks.items():
            if name in RESERVED:
                raise ValueError(f"tasks.{name}: this name is used by the project itself; choose another")
            if task.recipe not in self.recipes:
                known = ", ".join(self.recipes) or "none"
                raise ValueError(f"tasks.{name}.recipe: there is no recipe {task.recipe!r}; known: {known}")
            recipe, place = self.recipes[task.recipe], f"recipes.{task.recipe}"
            # Shards and a table may have a split of their own; of these the stages see whether there is one.
            if self.data.validation == 0 and self.data.source not in ("tfrecord", "table"):
                why = "on the validation images and data.validation is 0; hold some out"
                if recipe.keep == "best":
                    raise ValueError(f"{place}.keep: 'best' is chosen {why}, or keep: last")
                if recipe.calibrate != "none":
                    raise ValueError(f"{place}.calibrate: a temperature is fitted {why}, or calibrate: none")
                if self.answers().get(name) == "combined":
                    raise ValueError(f"tasks.{name}.answer: combined is weighted {why}, or answer: derived or own")
            if name in self.answers() and all(
                other == name or entry.kind != "classes" for other, entry in self.tasks.items()
            ):
                raise ValueError(f"tasks.{name}.answer: {self.answers()[name]} needs another task of the kind classes")
        return self

    def task(self, name: str) -> Task:
        """The task called `name`; raises UserError where there is none."""
        if name not in self.tasks:
            raise UserError(f"{PATH}: there is no task {name!r}; known: {', '.join(self.tasks)}")
        return self.tasks[name]

    def recipe(self, task: str) -> Recipe:
        """The recipe that trains `task`."""
        return self.recipes[self.task(task).recipe]

    def answers(self) -> dict[str, AnswerName]:
        """What answers each task that is not answered by its own model alone."""
        asked = {name: task.answer for name, task in self.tasks.items() if not isinstance(task, OwnKind)}
        return {name: answer for name, answer in asked.items() if answer != "own"}

    def group_order(self) -> dict[str, list[str] | None]:
        """The names of the groups of each task in label order: DVC compares mappings without regard to order."""
        groups = {name: task.labels for name, task in self.tasks.items() if isinstance(task, Classes)}
        return {name: list(groups[name] or ()) or None if name in groups else None for name in self.tasks}


def refuse_uri(data: Data) -> None:
    """Raise UserError where `data.path` is a URI, which the stages read but DVC cannot tell a change of.

    So is `data.shifted`, which no stage reads from a URI.
    """
    if "://" in data.shifted:
        raise UserError(f"{PATH}: data.shifted: {data.shifted!r} is a URI; copy the images here and give that path")
    if "://" in data.path:
        raise UserError(
            f"{PATH}: data.path: {data.path!r} is a URI and the DAG takes local paths: copy the images here (of shards"
            " the folder with manifest.json) and give that path, or train without DVC: `mtl train <task> --params"
            f" {PATH} --data {data.path} --output out`"
        )


def read(path: Path = PATH) -> Params:
    """Read and validate params.yaml; raises UserError with one line that names the key and what would be right."""
    return read_as(Params, path)
