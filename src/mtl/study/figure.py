"""The figure of the study: the gain of each arrangement over independent networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtl.study import statistics
from mtl.study.results import StudyResults

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ASIDE = 0.12  # of the space between two tasks, from one arrangement to the next


def gains(study: StudyResults) -> Figure:
    """Δ per task and on average: a dot per seed, the mean and its 95 % interval beside them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.5 + 1.6 * (len(study.tasks) + 1), 4), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0, color="k", linewidth=0.8, label="independent")
    arrangements = [name for name in dict.fromkeys(run.arrangement for run in study.runs) if name != "independent"]
    for number, arrangement in enumerate(arrangements):
        columns = [statistics.gains(study, arrangement, task) for task in study.tasks]
        columns.append(statistics.mean_gains(study, arrangement))
        colour = f"C{number}"
        label: str | None = arrangement
        for place, values in enumerate(columns):
            x = place + (2 * number + 1 - len(arrangements)) * ASIDE
            axes.plot([x - ASIDE / 3] * len(values), values, ".", color=colour, alpha=0.5)
            interval = statistics.over_seeds(values)
            if interval is not None:
                half = interval.high - interval.value if interval.bounded else 0.0
                at = x + ASIDE / 3
                axes.errorbar(at, interval.value, half, fmt="o", capsize=4, color=colour, label=label)
                label = None  # once in the legend
    axes.set_xticks(range(len(study.tasks) + 1), [*study.tasks, "mean"], parse_math=False)
    title = f"{study.data}: equal training compute"
    axes.set(ylabel="Δ score over independent, %", title=title, xlim=(-0.5, len(study.tasks) + 0.5))
    axes.grid(axis="y", alpha=0.3)
    axes.legend()
    return figure
