"""Advice for each task: keep its own model, derive or combine its answer, or share a network, by a rule stated here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mtl.study import statistics
from mtl.study.results import OfCombined, StudyResults, Verdict
from mtl.study.statistics import Interval


@dataclass(frozen=True)
class Combined:
    """The combined answer against the two that it is made of, on the test images.

    Attributes:
        over_own, over_derived: what it has more of, as `Evidence.gain`.
        nll_over_own, nll_over_derived: how much smaller its loss is, in nats.
        of_both: neither weight is 0.
    """

    over_own: Interval
    over_derived: Interval
    nll_over_own: Interval
    nll_over_derived: Interval
    of_both: bool = True

    @property
    def is_better(self) -> bool:
        """Whether it is clearly better than both in accuracy, or in nll where in accuracy it is not clearly worse."""
        gains, losses = (self.over_own, self.over_derived), (self.nll_over_own, self.nll_over_derived)
        if not self.of_both:
            return False
        if all(gain.sign > 0 for gain in gains):
            return True
        return all(gain.high >= 0 for gain in gains) and all(gain.sign > 0 for gain in losses)


@dataclass(frozen=True)
class Evidence:
    """The evidence on one task.

    Attributes:
        collapsed: its own model gives every image the same label.
        base: the task whose model implies its answer; None where no task does.
        gain: accuracy of its own model minus that of the implied answer, in points (per cent of the images); of another
            kind than `classes` the difference of the mean utilities.
        shared: Δ of the shared over the independent network, in per cent.
        shared_over_derived: Δ of the shared network over the arrangement that spends all training on one task.
        derived: Δ of that arrangement over the independent network.
        seeds: how many the study has.
        unit: of `gain`.
        combined: the combined answer; None where there is none.
        combined_over_independent: Δ of the combined answer in the study, whose networks are the independent ones.
        combined_over_derived: likewise over the arrangement that spends all training on one task.
        cost: multiply-adds per image of its own model, which a derived answer saves; None where they are unknown.
    """

    collapsed: bool = False
    base: str | None = None
    gain: Interval | None = None
    shared: Interval | None = None
    shared_over_derived: Interval | None = None
    derived: Interval | None = None
    seeds: int = 0
    unit: str = "points"
    combined: Combined | None = None
    combined_over_independent: Interval | None = None
    combined_over_derived: Interval | None = None
    cost: int | None = None


@dataclass(frozen=True)
class Advice:
    """Advice on one task.

    Attributes:
        action: what to do.
        sure: whether the evidence excludes the opposite at 95 %.
        because: the reason.
        settle: what would make it sure; empty where nothing is needed.
    """

    action: Literal["keep", "derive", "combine", "share", "repair"]
    sure: bool
    because: str
    settle: str = ""


def gather(task: str, verdict: Verdict | None, study: StudyResults | None) -> Evidence:
    """The evidence on `task` in the two metrics files."""
    implied = verdict.derived.get(task) if verdict else None
    gain, of_classes = None, verdict is None or task not in verdict.tasks or verdict.tasks[task].kind == "classes"
    if implied is not None and implied.gain is not None:
        scale = 100 if of_classes else 1
        bounds = [scale * b for b in (implied.gain_low, implied.gain_high) if b is not None]
        gain = Interval(scale * implied.gain, *(bounds if len(bounds) == 2 else ()))
    unit = "points" if of_classes else "of utility"
    base = implied.base if implied else None
    collapsed = bool(verdict and task in verdict.tasks and verdict.tasks[task].one_class)
    both = verdict.combined.get(task) if verdict else None
    combined = None if both is None else _combined(both, 100 if of_classes else 1)
    cost = both.multiply_adds["own"] if both is not None and both.multiply_adds else None
    if study is None:
        return Evidence(collapsed, base, gain, unit=unit, combined=combined, cost=cost)

    def over(arrangement: str, other: str) -> Interval | None:
        return statistics.over_seeds(statistics.gains(study, arrangement, task, other))

    derived = over("derived", "independent")
    if verdict is None and derived is not None and task != study.base:
        base = study.base
    return Evidence(
        collapsed,
        base,
        gain,
        shared=over("shared", "independent"),
        shared_over_derived=over("shared", "derived"),
        derived=derived,
        seeds=len(statistics.by_seed(study, "independent")),
        unit=unit,
        combined=combined,
        combined_over_independent=over("combined", "independent"),
        combined_over_derived=over("combined", "derived"),
        cost=cost,
    )


def _combined(both: OfCombined, scale: int) -> Combined:
    (over_own, less_than_own), (over_derived, less_than_derived) = [
        (
            Interval(scale * g.gain, scale * g.gain_low, scale * g.gain_high),
            Interval(g.nll_gain, g.nll_gain_low, g.nll_gain_high),
        )
        for g in (both.over_own, both.over_derived)
    ]
    of_both = both.own_weight > 0 and both.derived_weight > 0
    return Combined(over_own, over_derived, less_than_own, less_than_derived, of_both)


def advise(e: Evidence) -> Advice:
    """Apply the rule, in its order:

    1. A model that gives every image the same label is repaired first.
    2. Share, where the shared network is clearly better (its whole 95 % interval above 0) than the independent one,
       and than one that had all the training for itself: else it is the training that helped, and not the sharing.
    3. Combine, where the answer that weighs the own and the derived one against each other is clearly better than both
       on the test images: in accuracy (of other kinds in utility), or in nll where its accuracy is not clearly worse
       than that of either. It costs what the own model costs, beside the base's. Where one weight is 0 nothing is
       combined.
    4. Derive, where another task implies the answer and the task's own model is not clearly better on the test
       images, or, where that was not measured, in the study: the derived answer costs nothing. Sure where its own model
       is clearly no better.
    5. Keep. Sure where the study shows that sharing is clearly no better.
    """
    if e.collapsed:
        return Advice("repair", True, "its own model gives every image the same label", "another training")
    shared, alone = _sign(e.shared), _sign(e.shared_over_derived)
    if shared > 0 and (alone > 0 or (e.base is None and e.shared_over_derived is None)):
        return Advice("share", True, "a shared network is better at equal training compute")
    if e.combined is not None and e.combined.is_better:
        return Advice("combine", True, f"with what {e.base} implies it is better than either alone")
    if e.base is not None:
        own = _sign(_own_over_derived(e))
        if own < 0:
            return Advice("derive", True, f"its own model is no better than what {e.base} implies")
        if own == 0:
            because = f"its own model is not clearly better than what {e.base} implies, which costs nothing"
            tested = e.gain is not None and e.gain.bounded
            return Advice("derive", False, because, "more test images" if tested else "`dvc repro`, which tests that,")
        because = f"its own model is better than what {e.base} implies"
    else:
        because = "no other task implies its answer"
    if e.shared is None:
        return Advice("keep", False, f"{because}; sharing was not tried", "the study")
    # Where sharing beats the independent network, it is compared with the one that had all the training.
    than = " than one network with all the training for itself" if shared > 0 or (shared == 0 and alone < 0) else ""
    if shared < 0 or alone < 0:
        return Advice("keep", True, f"{because}, and sharing is no better{than}")
    return Advice("keep", False, f"{because}, and sharing is not clearly better{than}", "more seeds in the study")


def sentence(task: str, e: Evidence) -> str:
    """The advice on `task` in one sentence, with its figures."""
    advice = advise(e)
    what = {
        "keep": "keep its own model",
        "derive": f"derive it from {e.base}",
        "combine": f"combine its own answer with {e.base}'s",
        "share": "share one network with the other tasks",
        "repair": "train it again before judging it",
    }[advice.action]
    seeds = f", {e.seeds} seed{'s' * (e.seeds != 1)}"
    figures = [
        *_figure(f"own − {e.base}'s", e.gain, e.unit, ""),
        *_figure("derived over independent Δ", e.derived, "%", seeds),
        *_figure("shared over independent Δ", e.shared, "%", seeds),
        *_figure("shared over derived Δ", e.shared_over_derived, "%", seeds),
    ]
    if advice.action == "combine" and e.combined is not None:
        figures += _figure("combined − own", e.combined.over_own, e.unit, "")
        figures += _figure(f"combined − {e.base}'s", e.combined.over_derived, e.unit, "")
        figures += _figure("nll below own", e.combined.nll_over_own, "nats", "", ".4f")
        figures += _figure(f"nll below {e.base}'s", e.combined.nll_over_derived, "nats", "", ".4f")
        figures += _figure("combined over independent Δ", e.combined_over_independent, "%", seeds)
        figures += _figure("combined over derived Δ", e.combined_over_derived, "%", seeds)
    if e.cost is not None:
        figures.append(
            f"multiply-adds per image where {e.base} is asked anyway: own and combined {e.cost:,} more, derived none"
        )
    evidence = f" ({'; '.join(figures)})" if figures else ""
    settle = f"; {advice.settle} would settle it" if advice.settle and not advice.sure else ""
    return f"{task}: {what}, {'sure' if advice.sure else 'not sure'}: {advice.because}{evidence}{settle}."


def _own_over_derived(e: Evidence) -> Interval | None:
    """The gain on the test images, or where it has no interval that of the study."""
    if (e.gain is not None and e.gain.bounded) or e.derived is None:
        return e.gain
    return e.derived.negated


def _sign(interval: Interval | None) -> int:
    return 0 if interval is None else interval.sign


def _figure(name: str, interval: Interval | None, unit: str, more: str, form: str = ".2f") -> list[str]:
    if interval is None:
        return []
    low, high = (f"{bound:+{form}}" for bound in (interval.low, interval.high))
    bounds = f", 95 % {low} to {high}{more}" if interval.bounded else ", no interval"
    return [f"{name} {interval.value:+{form}} {unit}{bounds}"]
