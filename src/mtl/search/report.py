"""The result of a study in words: a table of the best parameters, remarks on them, and the command to train again."""

from __future__ import annotations

import math
import re
import shlex
import warnings
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from mtl.config.editing import holds
from mtl.config.params import PATH
from mtl.config.tune import Double, Integer
from mtl.data import store
from mtl.search import ranges, studies
from mtl.search.drawing import values_of
from mtl.search.space import Space

if TYPE_CHECKING:
    from rich.table import Table

REASONS = 5  # how many failures are named


def epochs(study: optuna.Study) -> int:
    """The number of epochs of the finished trials, over all their tasks."""
    return sum(trial.last_step or 0 for trial in study.get_trials(deepcopy=False, states=studies.FINISHED))


def reached(study: optuna.Study) -> int:
    """The last epoch that every finished trial reached, over all its tasks; 0 where there is no trial."""
    return min((trial.last_step or 0 for trial in study.get_trials(deepcopy=False, states=studies.FINISHED)), default=0)


def importances(study: optuna.Study) -> dict[str, float]:
    """The share of the metric's variance that each parameter explains (fANOVA, Hutter et al. 2014); may be empty.

    Where trials were stopped early, the metric is that after the last epoch that all `reached`: those that were trained
    to their end are few, and the best.
    """
    finished, step = study.get_trials(deepcopy=False, states=studies.FINISHED), reached(study)
    if len(finished) < 2:
        return {}
    if any(trial.state == TrialState.PRUNED for trial in finished):
        study = optuna.create_study(direction=study.direction)
        for trial in finished:
            value = trial.intermediate_values[step]
            study.add_trial(optuna.create_trial(value=value, params=trial.params, distributions=trial.distributions))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return optuna.importance.get_param_importances(study, evaluator=evaluator)
        except (ValueError, RuntimeError):  # all have the same value
            return {}


def table(study: optuna.Study, space: Space, top: FrozenTrial) -> Table:
    """The best parameters beside those in params.yaml, their ranges and their importance."""
    from rich.table import Table

    present, weights = space.present(), importances(study)
    grid = Table("parameter", "best", PATH.name, "searched", "importance", box=None, pad_edge=False)
    for path, value in values_of(top, space.parameters).items():
        parameter = space.parameters[path]
        if isinstance(parameter, Double | Integer):
            searched = f"{parameter.min:g} … {parameter.max:g}" + (", log" if parameter.scale == "log" else "")
        else:
            searched = ", ".join(map(str, parameter.values))
        weight = f"{weights[path]:.2f}" if path in weights else "-"
        grid.add_row(path.removeprefix("recipes."), _text(value), _text(present[path]), searched, weight)
    return grid


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def words(study: optuna.Study, space: Space, top: FrozenTrial) -> list[str]:
    """Sentences beside the table: comparison with the recipe as it stands, values at the edge of a range, failures."""
    metric, counts = space.tune.metric, studies.counts(study)
    best = studies.metric(top)
    lines = [
        f"trials trained to their end: {counts[TrialState.COMPLETE]}; stopped early: {counts[TrialState.PRUNED]};"
        f" epochs: {epochs(study)}"
    ]
    if counts[TrialState.PRUNED]:
        lines.append(f"importance is for {metric} after epoch {reached(study)}, which all of them reached")
    attempts = [trial for trial in study.get_trials(deepcopy=False) if trial.user_attrs.get("baseline")]
    baseline = next((trial for trial in attempts if trial.state == TrialState.COMPLETE), None)
    if not attempts:
        lines.append(f"{PATH} as it was at the start lies outside the ranges: it is not among the trials")
    elif baseline is None:
        lines.append(f"{PATH} as it was at the start was not trained to its end (trial {attempts[-1].number})")
    elif baseline.number == top.number:
        lines.append(f"No trial is better than {PATH} as it was at the start: it stands ({metric} {best:.4f})")
    else:
        lines.append(f"{metric} {best:.4f}, against {studies.metric(baseline):.4f} of {PATH} as it was at the start")
        if metric == "val_acc" and len(space.tasks) == 1:
            images = store.read_dataset().validation
            error = math.sqrt(best * (1 - best) / images)  # of a binomial
            lines[-1] += f"; on {images} validation images an accuracy has a standard error of {error:.4f}"
    for path, value in values_of(top, space.parameters).items():
        if end := ranges.edge(space.parameters[path], value):
            lines.append(f"{path}: the best value, {_text(value)}, lies at the {end} of what was searched")
    failed = studies.failures(study)
    lines += [f"trial {trial.number} failed: {reason}" for trial, reason in failed[:REASONS]]
    if len(failed) > REASONS:
        lines.append(f"{len(failed) - REASONS} more failed")
    if lost := sum(bool(trial.user_attrs.get("not_logged")) for trial in study.get_trials(deepcopy=False)):
        lines.append(f"MLflow: {lost} trials were not logged as a whole; `mtl log` lists what is kept for later")
    return lines


def command(space: Space, values: dict[str, Any]) -> str:
    """The command `dvc exp run` that trains with `values` and the trials' epochs."""
    written = space.settings.model_dump(mode="json", exclude_unset=True)
    line = ["dvc exp run", *(f"train@{task}" for task in space.tasks)]
    for path, value in {**space.reduced(values), **values}.items():
        added = "" if holds(written, path) else "++"  # Hydra's word for a key that the file leaves to its default
        line.append(f"-S {shlex.quote(f'{added}{path}={override(value)}')}")
    return " ".join(line)


def override(value: Any) -> str:
    """A value in the grammar of Hydra, which `dvc exp run -S` reads."""
    from hydra.core.override_parser.types import Quote, QuotedString

    if isinstance(value, list | tuple):
        return f"[{','.join(map(override, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if not isinstance(value, str):
        return repr(value)
    plain = re.fullmatch(r"[A-Za-z_][\w:.-]*", value) and value.lower() not in ("null", "true", "false", "nan", "inf")
    return value if plain else QuotedString(value, Quote.single).with_quotes()
