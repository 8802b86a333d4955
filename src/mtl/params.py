"""params.yaml as frozen, validated types. This is the only reader of the file.

The file is read with the YAML 1.2 rules that DVC uses, so that `yes` is text and `1e-3` a number in both.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Discriminator, Field, JsonValue, Tag, ValidationError, field_validator, model_validator

from mtl.errors import UserError, one_line
from mtl.gate import Gate
from mtl.settings import Settings
from mtl.tune_settings import Tune

PATH = Path("params.yaml")

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

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Rate = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


S = TypeVar("S", bound=Settings)


class Data(Settings):
    """Where the images come from and what is held out of them."""

    @field_validator("path")
    @classmethod
    def _is_apart_from_the_outputs(cls, path: str) -> str:
        if Path("data/raw").absolute().is_relative_to(os.path.normpath(Path(path).absolute())):
            raise ValueError(f"{path!r} holds the outputs of the stages; use a folder of its own, like data/external")
        return path

    source: Literal["cifar10", "folder", "generated", "tfrecord"]
    path: Annotated[str, Field(pattern=r"^[^\x00-\x1f]+$")]
    size: Annotated[int, Field(ge=4, le=4096)] | None = None
    validation: Annotated[int, Field(ge=0)]
    cache: Annotated[int, Field(ge=0)] = 256  # of tfrecord: up to so many MiB of images in memory, more are streamed


class Task(Settings):
    """One independent model: groups of classes (None: the data set's own classes) and the recipe that trains it."""

    labels: dict[Annotated[str, Field(min_length=1)], tuple[str, ...]] | None
    recipe: str

    @field_validator("labels")
    @classmethod
    def _groups_are_disjoint(cls, labels: dict[str, tuple[str, ...]] | None) -> dict[str, tuple[str, ...]] | None:
        if labels is None:
            return labels
        if not 2 <= len(labels) <= 256:
            raise ValueError(f"{len(labels)} group(s); a task tells between 2 and 256 groups apart")
        for group, classes in labels.items():
            if not classes:
                raise ValueError(f"group {group!r} is empty; name at least one class in it")
        twice = [name for name, count in Counter(sum(labels.values(), ())).items() if count > 1]
        if twice:
            groups = [group for group, classes in labels.items() if twice[0] in classes]
            raise ValueError(f"class {twice[0]!r} is listed twice (in {', '.join(groups)}); list it once")
        return labels


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


class Sgd(Settings):
    """Stochastic gradient descent, with Nesterov momentum where momentum is not 0."""

    name: Literal["sgd"]
    learning_rate: Rate
    momentum: Fraction = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0


class Adam(Settings):
    """Adam; with weight decay it is AdamW."""

    name: Literal["adam"]
    learning_rate: Rate = 0.001
    weight_decay: Annotated[float, Field(ge=0)] = 0.0


class Muon(Settings):
    """Muon for the convolutions, Adam at a tenth of its learning rate for everything else."""

    name: Literal["muon"]
    learning_rate: Rate
    momentum: Fraction = 0.95
    weight_decay: Annotated[float, Field(ge=0)] = 0.0


class Constant(Settings):
    """The same learning rate throughout."""

    name: Literal["constant"]


class OneCycle(Settings):
    """The learning rate rises linearly for the fraction `warmup` of all steps, then falls linearly to 0."""

    name: Literal["one_cycle"]
    warmup: Fraction


class Augmentation(Settings):
    """Changes of the training images: mirrored in every second epoch, moved at random by up to `translate` pixels."""

    flip: bool = False
    translate: Annotated[int, Field(ge=0, le=64)] = 0


class Board(Settings):
    """What TensorBoard is given besides the usual: a profile of the steps from the first to the last of `profile`."""

    profile: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=2, max_length=2)]

    @field_validator("profile")
    @classmethod
    def _is_in_order(cls, profile: tuple[int, ...]) -> tuple[int, ...]:
        if profile[0] > profile[1]:
            raise ValueError(f"{list(profile)} ends before it begins; write [first step, last step]")
        return profile


class Recipe(Settings):
    """A network and how to train it."""

    network: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*(:[A-Za-z_]\w*)?$")]
    options: dict[str, JsonValue] = Field(default_factory=dict)
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    loss: Literal["categorical_crossentropy", "binary_crossentropy"] = "categorical_crossentropy"
    label_smoothing: Fraction = 0.0
    optimizer: Annotated[Sgd | Adam | Muon, Field(discriminator="name")]
    schedule: Annotated[Constant | OneCycle, Field(discriminator="name")] = Constant(name="constant")
    augmentation: Augmentation = Augmentation()
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)]
    epochs: Annotated[int, Field(ge=1, le=100_000)]
    steps_per_epoch: Annotated[int, Field(ge=1)] | None = None  # an epoch is so many batches; None: every image once
    steps_per_execution: Annotated[int, Field(ge=1)] = 1  # steps that are given to the device at once
    keep: Literal["last", "best"] = "last"
    tensorboard: Annotated[
        Annotated[bool, Tag("switch")] | Annotated[Board, Tag("more")],
        Discriminator(lambda given: "switch" if isinstance(given, bool | str | int | None) else "more"),
    ] = False  # write logs/<task> for TensorBoard; changes no result


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
            if (
                self.recipes[task.recipe].keep == "best"
                and self.data.validation == 0
                and self.data.source != "tfrecord"
            ):
                raise ValueError(
                    f"recipes.{task.recipe}.keep: 'best' is chosen on the validation images and data.validation"
                    " is 0; hold some out, or keep: last"
                )
        return self

    def task(self, name: str) -> Task:
        """The task called `name`; raises UserError where there is none."""
        if name not in self.tasks:
            raise UserError(f"{PATH}: there is no task {name!r}; known: {', '.join(self.tasks)}")
        return self.tasks[name]

    def recipe(self, task: str) -> Recipe:
        """The recipe that trains `task`."""
        return self.recipes[self.task(task).recipe]


def read(path: Path = PATH) -> Params:
    """Read and validate params.yaml; raises UserError with one line that names the key and what would be right."""
    return read_as(Params, path)


def read_as(kind: type[S], path: Path) -> S:
    """Read and validate a file of parameters; raises UserError as `read` does."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        tree = YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run from the root of the repository") from None
    except (YAMLError, UnicodeDecodeError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: not valid YAML: {one_line(error)}") from None
    try:
        _refuse_odd_keys(path, tree)
        return validate(tree, kind)
    except ValidationError as error:
        raise UserError(f"{path}: {first_line(error)}") from None
    except (RecursionError, ValueError):
        raise UserError(f"{path}: nested without end; write it without anchors to itself") from None


def validate(tree: object, kind: type[S] = Params) -> S:
    """The types of what params.yaml holds; raises pydantic's ValidationError, which `first_line` puts into one line."""
    # JSON in strict mode: a number in quotes is refused, a list is still taken for a tuple.
    return kind.model_validate_json(json.dumps(tree, default=str), strict=True)


def _refuse_odd_keys(path: Path, tree: object) -> None:
    """JSON makes text of every key, so that `1:` and `'1':` would be one."""
    for key, value in tree.items() if isinstance(tree, dict) else ():
        if not isinstance(key, str) or not key.isprintable():
            raise UserError(f"{path}: key {key!r} is not text; write it in quotes")
        _refuse_odd_keys(path, value)


def first_line(error: ValidationError) -> str:
    """`tasks.model1.recipe: Field required (and 2 more)`, from pydantic's list of errors."""
    first, *more = error.errors(include_url=False)
    # Pydantic puts the tag of a union ('sgd') into the path, behind the key (or the index) that holds the union.
    parts = [str(part) for part in first["loc"]]
    tagged = [before in ("optimizer", "schedule", "tensorboard") or before.isdigit() for before in ["", *parts]]
    place = ".".join(part for part, tag in zip(parts, tagged, strict=False) if not tag)
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "unknown key; see the comments in params.yaml for those there are"
    elif first["type"] == "union_tag_not_found":
        message = "its name is missing, such as {name: sgd, …}; see the comments in params.yaml for those there are"
    elif first["type"] != "value_error" and isinstance(first["input"], str | int | float):
        message += f", not {first['input']!r}"
    return (f"{place}: " if place else "") + message + (f" (and {len(more)} more)" if more else "")
