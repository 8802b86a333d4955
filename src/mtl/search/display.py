"""The display of a running study: a line of its state, and one per trial that ended."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

import optuna
from optuna.trial import FrozenTrial, TrialState

from mtl.search import studies
from mtl.search.drawing import values_of
from mtl.search.space import Space

if TYPE_CHECKING:
    from rich.console import Console


def best(study: optuna.Study) -> FrozenTrial | None:
    """The best of the complete trials, and the earlier of two that are equal; None where there is none."""
    return next(iter(studies.ranked(study)), None)


def short(values: dict[str, object]) -> str:
    """`learning_rate=0.24 momentum=0.6`: the last part of each path, numbers with four digits."""
    text = [(path.rpartition(".")[2], f"{v:.4g}" if isinstance(v, float) else v) for path, v in values.items()]
    return " ".join(f"{name}={value}" for name, value in text)


def status(study: optuna.Study, space: Space, seconds_left: float | None) -> str:
    """`model1: 12 of 30 done (7 pruned), 2 running, 1 failed; 23 min left; best val_acc 0.8712 (trial 7): …`."""
    counts = studies.counts(study)
    done = sum(counts[state] for state in studies.FINISHED)
    text = (
        f"{study.study_name}: {done} of {studies.target(study, space.tune)} done ({counts[TrialState.PRUNED]} pruned)"
    )
    text += f", {counts[TrialState.RUNNING]} running"
    if failed := len(studies.failures(study)):
        text += f", {failed} failed"
    if seconds_left is not None:
        text += f"; {max(0, seconds_left) / 60:.0f} min left"
    if top := best(study):
        text += f"; best {space.tune.metric} {studies.metric(top):.4f} (trial {top.number}): "
        text += short(values_of(top, space.parameters))
    return text


class Progress:
    """Prints a line for each trial that ends and, on a terminal, keeps one of the study's state below them."""

    def __init__(self, study: optuna.Study, space: Space, deadline: float | None, console: Console) -> None:
        from rich.live import Live

        self.study, self.space, self.deadline, self.console = study, space, deadline, console
        self.live = Live(console=console, auto_refresh=False, transient=True)
        self.printed = {trial.number for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()}
        self.began, self.before = time.monotonic(), self._done()

    def __enter__(self) -> Progress:
        self.live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.live.__exit__(kind, error, traceback)
        self.update(last=True)

    def _done(self) -> int:
        return sum(studies.counts(self.study)[state] for state in studies.FINISHED)

    def _seconds_left(self) -> float | None:
        """Seconds left of the time budget; without one, those that the trials to do will take at the pace so far."""
        now = time.monotonic()
        if self.deadline is not None:
            return self.deadline - now
        done = self._done()
        pace = (now - self.began) / (done - self.before) if done > self.before else None
        return pace and pace * (studies.target(self.study, self.space.tune) - done)

    def update(self, last: bool = False) -> None:
        """Print the trials that ended since the last call."""
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state.is_finished() and trial.number not in self.printed:
                self.printed.add(trial.number)
                self._print(trial)
        if self.console.is_terminal and not last:
            from rich.text import Text

            line = Text(status(self.study, self.space, self._seconds_left()), no_wrap=True, overflow="ellipsis")
            self.live.update(line, refresh=True)

    def _print(self, trial: FrozenTrial) -> None:
        if trial.user_attrs.get("withdrawn") or f"{studies.ENDED}{trial.number}" in self.study.user_attrs:
            return
        values = short(values_of(trial, self.space.parameters))
        outcome = f"{trial.state.name.lower()}: {trial.user_attrs.get('reason', '')}"
        if trial.state == TrialState.COMPLETE:
            outcome = f"{self.space.tune.metric} {studies.metric(trial):.4f}"
        self.console.print(f"trial {trial.number}: {outcome}  {values}")

    def ended(self, trial: FrozenTrial, why: str) -> None:
        """Print that a trial was ended from outside, and why."""
        self.console.print(f"trial {trial.number}: {why}")
