"""Means, intervals and relative gains over the seeds of the study."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import mean, stdev
from typing import NamedTuple

from mtl.study.results import Score, StudyResults, StudyRun

LEVEL = 0.95


class Interval(NamedTuple):
    """An estimate and its 95 % interval. Without one (a single seed) the bounds are infinite."""

    value: float
    low: float = -math.inf
    high: float = math.inf

    @property
    def bounded(self) -> bool:
        """Return whether there is an interval at all."""
        return math.isfinite(self.low)

    @property
    def negated(self) -> Interval:
        """The interval of the opposite difference."""
        return Interval(-self.value, -self.high, -self.low)

    @property
    def sign(self) -> int:
        """1 where all of the interval is above 0, -1 where none of it is, 0 where it has both."""
        return 1 if self.low > 0 else -1 if self.high <= 0 else 0


def over_seeds(values: Sequence[float]) -> Interval | None:
    """The mean with Student's t interval, from one value per seed; None where there is no value."""
    from scipy.stats import t

    if len(values) < 2:
        return Interval(values[0]) if values else None
    half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return Interval(mean(values), mean(values) - half, mean(values) + half)


def by_seed(study: StudyResults, arrangement: str) -> dict[int, StudyRun]:
    """The runs of an arrangement, in the order of their seeds."""
    runs = {run.seed: run for run in study.runs if run.arrangement == arrangement}
    return dict(sorted(runs.items()))


def gains(study: StudyResults, arrangement: str, task: str, over: str = "independent") -> list[float]:
    """Δ of a task for each seed that both arrangements were trained with: positive where `arrangement` is better.

    Δ = 100 · (score of `arrangement` - score of `over`) / score of `over`, in per cent (Maninis et al., Attentive
    single-tasking of multiple tasks, CVPR 2019, for a measure where higher is better), of the primary score. Seeds
    where the score of `over` is not above 0 are left out.
    """
    pairs = [(a.score, b.score) for a, b in _pairs(study, arrangement, task, over)]
    return [100 * (a - b) / b for a, b in pairs if a is not None and b is not None and b > 0]


def skill_gains(study: StudyResults, arrangement: str, task: str, over: str = "independent") -> list[float]:
    """The difference of the skills for each seed, in points: 100 · (skill of `arrangement` - skill of `over`)."""
    pairs = [(a.skill, b.skill) for a, b in _pairs(study, arrangement, task, over)]
    return [100 * (a - b) for a, b in pairs if a is not None and b is not None]


def _pairs(study: StudyResults, arrangement: str, task: str, over: str) -> list[tuple[Score, Score]]:
    ours, theirs = by_seed(study, arrangement), by_seed(study, over)
    pairs = [(ours[seed].tasks.get(task), theirs[seed].tasks.get(task)) for seed in ours if seed in theirs]
    return [(a, b) for a, b in pairs if a and b]


def mean_gains(
    study: StudyResults, arrangement: str, over: str = "independent", of: Callable[..., list[float]] = gains
) -> list[float]:
    """The mean of Δ over all tasks, for each seed; empty where the arrangement leaves a task unanswered."""
    per_task = [of(study, arrangement, task, over) for task in study.tasks]
    complete = len({len(values) for values in per_task}) == 1
    return [mean(values) for values in zip(*per_task, strict=True)] if complete else []
