"""Conversion between the parameters that params.yaml declares and those that Optuna draws."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mtl.config.tune import Double, Integer, Parameter, Tune

if TYPE_CHECKING:
    import optuna

Values = dict[str, Any]  # full path -> value, as params.yaml would hold it
Parameters = Mapping[str, Parameter]  # by full path


def probes(parameter: Parameter) -> list[Any]:
    """The ends of a range, or all values of a choice."""
    return [parameter.min, parameter.max] if isinstance(parameter, Double | Integer) else list(parameter.values)


def encode(value: Any) -> Any:
    """A value as Optuna stores it: a list as JSON, for its storages hold numbers and text alone."""
    return json.dumps(value) if isinstance(value, list | tuple) else value


def decode(parameter: Parameter, stored: Any) -> Any:
    """The value that `encode` made `stored` from."""
    if isinstance(parameter, Double | Integer):
        return stored
    return next(value for value in parameter.values if encode(value) == stored)


def contains(parameter: Parameter, value: Any) -> bool:
    """Return whether `value` is one that a trial could draw."""
    if isinstance(parameter, Double | Integer):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and parameter.min <= value <= parameter.max
    return value in parameter.values


def grid(parameters: Parameters) -> Iterator[Values]:
    """All combinations of the values of integer, categorical and discrete parameters."""
    for point in itertools.product(*_axes(parameters)):
        yield dict(zip(parameters, point, strict=True))


def grid_size(parameters: Parameters) -> int:
    """The number of points of `grid`."""
    return math.prod(map(len, _axes(parameters)))


def _axes(parameters: Parameters) -> list[Sequence[Any]]:
    return [
        range(parameter.min, parameter.max + 1) if isinstance(parameter, Integer) else parameter.values
        for parameter in parameters.values()
        if not isinstance(parameter, Double)
    ]


def sampler(tune: Tune, seed: int, number: int) -> optuna.samplers.BaseSampler:
    """The sampler of one trial, whose draws depend on the seed, the trial's number and the trials before it."""
    from optuna.samplers import RandomSampler, TPESampler

    own_seed = (seed * 1_000_003 + number) % 2**32
    if tune.algorithm == "tpe":
        return TPESampler(seed=own_seed)
    return RandomSampler(seed=own_seed)  # of a grid, every point is queued beforehand


def pruner(tune: Tune) -> optuna.pruners.BasePruner:
    """The rule that stops trials early. ASHA is successive halving: the best quarter goes on after epochs 1, 4, …"""
    from optuna.pruners import MedianPruner, NopPruner, SuccessiveHalvingPruner

    if tune.early_stopping == "asha":
        return SuccessiveHalvingPruner(min_resource=1, reduction_factor=4)
    return MedianPruner(n_startup_trials=5) if tune.early_stopping == "median" else NopPruner()


def suggest(trial: optuna.Trial, parameters: Parameters) -> Values:
    """Draw the trial's parameters."""
    values: Values = {}
    for path, parameter in parameters.items():
        if isinstance(parameter, Double):
            values[path] = trial.suggest_float(path, parameter.min, parameter.max, log=parameter.scale == "log")
        elif isinstance(parameter, Integer):
            values[path] = trial.suggest_int(path, parameter.min, parameter.max, log=parameter.scale == "log")
        else:
            stored = trial.suggest_categorical(path, [encode(value) for value in parameter.values])
            values[path] = decode(parameter, stored)
    return values


def values_of(trial: optuna.trial.FrozenTrial, parameters: Parameters) -> Values:
    """The parameters of a trial as params.yaml would hold them, in the order they are declared in."""
    return {path: decode(parameters[path], trial.params[path]) for path in parameters if path in trial.params}


def carried(trial: optuna.trial.FrozenTrial, parameters: Parameters) -> Values | None:
    """The parameters of another study's trial; None where this study could not draw them."""
    for path, parameter in parameters.items():
        stored = trial.params.get(path)
        choices = [] if isinstance(parameter, Double | Integer) else [encode(value) for value in parameter.values]
        if stored not in choices and not (isinstance(parameter, Double | Integer) and contains(parameter, stored)):
            return None
    return values_of(trial, parameters)
