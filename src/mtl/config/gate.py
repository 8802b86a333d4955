"""The section `promote:` of params.yaml: the conditions on which a joint model becomes the champion."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from mtl.config.settings import Settings, like

Proportion = Annotated[float, Field(ge=0, le=1)]
# Of the verdict on a task, better the larger it is: acc, balanced_acc, macro_f1, skill, map, r2, …; see its kind.
ScoreName = Annotated[str, like(r"[a-z][a-z0-9_]*", "a score, such as acc, skill or r2")]
Minima = Annotated[dict[ScoreName, Annotated[float, Field(le=1)]], Field(min_length=1)]


class Gate(Settings):
    """The gate of `mtl promote`, on the validation images.

    Attributes:
        minimum: for each task named, the least value of each score named.
        accuracy: a short form of `minimum` with `acc` alone, {task: value}. One of the two is there.
        contradictions: the largest fraction of images on which the models may contradict each other.
        significance: level of a one-sided paired test (McNemar's exact one, of other kinds than `classes` a permutation
            test) for each task that the champion answers too: below it the champion is better. None: no comparison with
            the champion.
    """

    minimum: Annotated[dict[str, Minima], Field(min_length=1)] | None = None
    accuracy: Annotated[dict[str, Proportion], Field(min_length=1)] | None = None
    contradictions: Proportion
    significance: Annotated[float, Field(gt=0, lt=1)] | None

    @model_validator(mode="after")
    def _asks_for_something(self) -> Gate:
        if self.minimum is None and self.accuracy is None:
            raise ValueError("it asks for no score; add minimum: {task: {score: value}}, or accuracy: {task: value}")
        twice = [task for task in self.accuracy or {} if "acc" in (self.minimum or {}).get(task, {})]
        if twice:
            raise ValueError(f"accuracy.{twice[0]} and minimum.{twice[0]}.acc are the same; leave one out")
        return self

    @property
    def minima(self) -> dict[str, dict[str, float]]:
        """The least value of each score by task."""
        minima: dict[str, dict[str, float]] = {task: {"acc": least} for task, least in (self.accuracy or {}).items()}
        for task, of_task in (self.minimum or {}).items():
            minima.setdefault(task, {}).update(of_task.items())
        return minima
