"""The section `promote:` of params.yaml: the conditions on which a joint model becomes the champion."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mtl.config.settings import Settings

Proportion = Annotated[float, Field(ge=0, le=1)]


class Gate(Settings):
    """The gate of `mtl promote`, on the validation images.

    Attributes:
        accuracy: for each task named, the least accuracy.
        contradictions: the largest fraction of images on which the models may contradict each other.
        significance: level of McNemar's exact test, one-sided, for each task that the champion answers too: below it
            the champion is better. None: no comparison with the champion.
    """

    accuracy: Annotated[dict[str, Proportion], Field(min_length=1)]
    contradictions: Proportion
    significance: Annotated[float, Field(gt=0, lt=1)] | None
