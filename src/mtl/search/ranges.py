"""The ranges of a study that goes on from an old one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from mtl.config.tune import Double, Integer, Parameter
from mtl.search.drawing import Values

EDGE = 0.05  # of a range, on its scale: a best value that is nearer to an end than this lies at the edge
MARGIN = 0.1  # of the old range, kept on both sides of what the best trials span
WIDER = 0.5  # of the old range, added beyond an end at which the best value lies


def _unit(parameter: Double | Integer, value: float) -> float:
    """The position of `value` in the range: 0 at min, 1 at max, on the parameter's scale."""
    low, high = parameter.min, parameter.max
    if parameter.scale == "log":
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _value(parameter: Double | Integer, unit: float) -> float:
    """The inverse of `_unit`, with three significant digits; a whole number for an integer."""
    low, high = parameter.min, parameter.max
    value = low * (high / low) ** unit if parameter.scale == "log" else low + unit * (high - low)
    return round(value) if isinstance(parameter, Integer) else float(f"{value:.3g}")


def edge(parameter: Parameter, value: Any) -> str | None:
    """`min` or `max` where `value` lies at that end of its range; a categorical parameter has no ends."""
    if isinstance(parameter, Double):
        unit = _unit(parameter, value)
        return "min" if unit <= EDGE else "max" if unit >= 1 - EDGE else None
    if isinstance(parameter, Integer):
        return {parameter.min: "min", parameter.max: "max"}.get(value)
    if parameter.type == "discrete":
        return {parameter.values[0]: "min", parameter.values[-1]: "max"}.get(value)
    return None


def next_range(
    parameter: Double | Integer, best: float, good: Sequence[float], accepted: Callable[[float], bool]
) -> tuple[float, float]:
    """The range that the next study should search.

    It is what the good values span, with a margin, and goes beyond an end at which the best value lies.

    Args:
        parameter: as the old study declares it.
        best: the value of the best trial.
        good: the values of the best quarter of the trials, that one included.
        accepted: whether the recipe takes a value; an end goes beyond the old one only to such a value.
    """
    units = [_unit(parameter, value) for value in good]
    at = edge(parameter, best)
    low = -WIDER if at == "min" else max(0.0, min(units) - MARGIN)
    high = 1 + WIDER if at == "max" else min(1.0, max(units) + MARGIN)
    ends = [parameter.min, parameter.max]
    for index, unit in enumerate((low, high)):
        wanted = _value(parameter, unit)
        if 0 <= unit <= 1:
            ends[index] = min(max(wanted, parameter.min), parameter.max)  # rounding may have gone beyond
        elif (parameter.scale != "log" or wanted > 0) and accepted(wanted):
            ends[index] = wanted
    # Rounding may also have gone past the best value.
    first, last = min(ends[0], best), max(ends[1], best)
    return (first, last) if first < last else (parameter.min, parameter.max)


def changed(
    parameters: dict[str, Parameter],
    ranked: Sequence[Values],
    accepts: Callable[[str, float], bool],
) -> dict[str, tuple[float, float]]:
    """The new range of each double and integer parameter whose range changes.

    Args:
        parameters: by full path, as the old study declares them.
        ranked: parameters of the old study's complete trials, the best first; at least one.
        accepts: whether the recipe takes a value at a path.
    """
    good = ranked[: max(3, math.ceil(len(ranked) / 4))]
    new_ranges: dict[str, tuple[float, float]] = {}
    for path, parameter in parameters.items():
        if isinstance(parameter, Double | Integer):
            values = [trial[path] for trial in good]
            new = next_range(parameter, values[0], values, partial(accepts, path))
            if new != (parameter.min, parameter.max):
                new_ranges[path] = new
    return new_ranges
