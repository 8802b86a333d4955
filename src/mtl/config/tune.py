"""The section `tune` of params.yaml: a study, in the words of the managed services (Vertex AI, SageMaker, Katib)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from mtl.config.settings import Settings, like

Path = Annotated[str, like(r"[A-Za-z_]\w*(\.\w+)*", "a dotted name, such as optimizer.learning_rate")]
Scale = Literal["linear", "log"]


class _Range(Settings):
    """A range with both ends in it, searched on a linear or a logarithmic scale."""

    name: Path
    min: float
    max: float
    scale: Scale = "linear"

    @model_validator(mode="after")
    def _is_a_range(self) -> _Range:
        if self.min >= self.max:
            raise ValueError(f"{self.name}: the range is empty: min {self.min:g} is not below max {self.max:g}")
        if self.scale == "log" and self.min <= 0:
            raise ValueError(f"{self.name}: no log scale from min {self.min:g}; use a min above 0, or scale: linear")
        return self


class Double(_Range):
    """A real number."""

    type: Literal["double"]


class Integer(_Range):
    """A whole number."""

    type: Literal["integer"]
    min: int
    max: int


class _Choice(Settings):
    """One of several values."""

    name: Path
    values: Annotated[tuple[JsonValue, ...], Field(min_length=2)]

    @model_validator(mode="after")
    def _are_different(self) -> _Choice:
        if len({repr(value) for value in self.values}) < len(self.values):
            raise ValueError(f"{self.name}: a value is listed twice; list it once")
        if any(isinstance(value, dict) for value in self.values):
            raise ValueError(f"{self.name}: a value is a mapping; search its keys one by one")
        return self


class Categorical(_Choice):
    """One of several values without an order: text, numbers, true and false, null, or lists of them."""

    type: Literal["categorical"]


class Discrete(_Choice):
    """One of several numbers, in rising order."""

    type: Literal["discrete"]
    values: Annotated[tuple[int | float, ...], Field(min_length=2)]

    @model_validator(mode="after")
    def _rise(self) -> Discrete:
        if list(self.values) != sorted(self.values):
            raise ValueError(f"{self.name}: discrete values are given in rising order, not {list(self.values)}")
        return self


Parameter = Annotated[Double | Integer | Categorical | Discrete, Field(discriminator="type")]


class Tune(Settings):
    """A study: what is searched, by which metric, and within which budget."""

    metric: Annotated[str, like(r"val_[a-z][a-z0-9_]*", "val_ and a score, such as val_acc, val_loss or val_r2")]
    goal: Literal["maximize", "minimize"]
    algorithm: Literal["tpe", "random", "grid"] = "tpe"
    early_stopping: Literal["none", "median", "asha"] = "none"
    epochs: Annotated[int, Field(ge=1, le=100_000)] | None = None
    images_per_epoch: Annotated[int, Field(ge=1)] | None = None
    max_trials: Annotated[int, Field(ge=1, le=100_000)]
    parallel_trials: Annotated[int, Field(ge=1, le=1024)] = 1
    max_failed_trials: Annotated[int, Field(ge=0)] = 0
    parameters: Annotated[tuple[Parameter, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _makes_sense(self) -> Tune:
        names = [parameter.name for parameter in self.parameters]
        duplicate = next((name for name in names if names.count(name) > 1), None)
        if duplicate:
            raise ValueError(f"parameters: {duplicate} is declared twice; declare it once")
        for parameter in self.parameters if self.algorithm == "grid" else ():
            if isinstance(parameter, Double):
                raise ValueError(
                    f"parameters: {parameter.name}: a grid has no points in a double range; give discrete values,"
                    " or algorithm: tpe or random"
                )
        return self
