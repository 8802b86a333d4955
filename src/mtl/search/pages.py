"""Files of a study: its pages, its trials as a CSV and their curves as a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import TrialState

from mtl import files
from mtl.search import studies
from mtl.search.display import best
from mtl.search.drawing import values_of
from mtl.search.space import Space

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write(study: optuna.Study, space: Space, folder: Path) -> None:
    """Write the pages (history, parallel coordinates, slices), the trials as a CSV and their curves as a picture."""
    folder.mkdir(parents=True, exist_ok=True)
    renamed = _with_short_names(study, space)
    pages: dict[str, Callable[..., Any]] = {
        "history": optuna.visualization.plot_optimization_history,
        "parallel_coordinates": optuna.visualization.plot_parallel_coordinate,
        "slices": optuna.visualization.plot_slice,
    }
    for name, draw in pages.items():
        # The script that draws lies beside the pages, once, so that they open without a network.
        draw(renamed, target_name=space.tune.metric).write_html(folder / f"{name}.html", include_plotlyjs="directory")
    files.write_csv(folder / "trials.csv", rows(study, space))
    curves(study, space).savefig(folder / "curves.png", dpi=120)


def _with_short_names(study: optuna.Study, space: Space) -> optuna.Study:
    """A copy with `momentum` for `recipes.compact.optimizer.momentum`: Optuna's plots cut names after 17 characters."""
    ends = [path.rpartition(".")[2] for path in space.parameters]
    short = {path: end if ends.count(end) == 1 else path for path, end in zip(space.parameters, ends, strict=True)}
    copy = optuna.create_study(direction=study.direction, study_name=study.study_name)
    for trial in study.get_trials(deepcopy=False, states=studies.FINISHED):
        copy.add_trial(
            optuna.create_trial(
                state=trial.state,
                value=trial.value,
                params={short[path]: value for path, value in trial.params.items()},
                distributions={short[path]: distribution for path, distribution in trial.distributions.items()},
                intermediate_values=trial.intermediate_values,
            )
        )
    return copy


def rows(study: optuna.Study, space: Space) -> list[dict[str, Any]]:
    """A row per finished or failed trial: its number, state, metric, epochs and parameters."""
    failed = {trial.number: why for trial, why in studies.failures(study)}
    table: list[dict[str, Any]] = []
    for trial in study.get_trials(deepcopy=False):
        if trial.state in studies.FINISHED or trial.number in failed:
            values = values_of(trial, space.parameters)
            reason = failed.get(trial.number) or trial.user_attrs.get("reason")
            table.append(
                {
                    "trial": trial.number,
                    "state": trial.state.name.lower(),
                    space.tune.metric: trial.value if trial.state == TrialState.COMPLETE else None,
                    "epochs": trial.last_step or 0,
                    **{path: values.get(path) for path in space.parameters},
                    "reason": reason,
                }
            )
    return table


def curves(study: optuna.Study, space: Space) -> Figure:
    """The learning curves of all trials: grey where stopped early, the best in front."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    top = best(study)
    for trial in study.get_trials(deepcopy=False, states=studies.FINISHED):
        steps = sorted(trial.intermediate_values)
        is_best = top is not None and trial.number == top.number
        whole = trial.state == TrialState.COMPLETE
        axes.plot(
            steps,
            [trial.intermediate_values[step] for step in steps],
            marker=".",
            color="tab:red" if is_best else "tab:blue" if whole else "0.7",
            linewidth=2 if is_best else 1,
            zorder=3 if is_best else 2 if whole else 1,
            label="best" if is_best else None,
        )
    axes.set(xlabel="epoch", ylabel=space.tune.metric, title=f"{study.study_name}: trials, grey ones stopped early")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return figure
