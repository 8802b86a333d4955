"""The tables of the verdict and of the study: rows of text, the header first."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev

from mtl.study import statistics
from mtl.study.results import OfDerived, StudyResults, Verdict
from mtl.study.statistics import Interval
from mtl.tasks import kinds
from mtl.tasks.relations import Relations
from mtl.text import aligned

Table = list[list[str]]
NONE = "–"


def verdict(v: Verdict) -> Table:
    """A row per task of the kind `classes`, and one over all tasks."""
    derived = ["derived from", "derived accuracy", "own − derived (95 %)", "p"]
    rows = [["task", "accuracy (95 %)", "loss", "nll", "nll ratio", "ECE", *derived]]
    for task, scores in v.tasks.items():
        if scores.kind != "classes":
            continue
        acc = f"{_number(scores.acc, '.4f')}{_range(scores.acc_low, scores.acc_high, '.4f')}"
        ratio, ece = _number(scores.nll_ratio, ".4f"), _number(scores.ece, ".4f")
        rows.append([task, acc, f"{scores.loss:.4f}", _number(scores.nll, ".4f"), ratio, ece])
        rows[-1] += _derived(v.derived.get(task), "acc")
    rows.append(["ave_acc, sum_loss", _number(v.ave_acc, ".4f"), f"{v.sum_loss:.4f}", *[""] * (3 + len(derived))])
    return rows


def scores(v: Verdict) -> Table:
    """A row per task of the kind `classes` with the test examples whose label is known, and the other scores."""
    rows = [["task", "examples", "skill", "balanced acc", "macro F1", "AUC", "avg precision"]]
    for task, s in v.tasks.items():
        if s.kind == "classes":
            values = (s.skill, s.balanced_acc, s.macro_f1, s.auc, s.average_precision)
            rows.append([task, _count(s.examples), *(_number(value, ".4f") for value in values)])
    return rows


def calibration(v: Verdict) -> Table:
    """A row per calibrated task: the cross-entropy and the calibration error on the test examples, before and after."""
    rows = [["calibrated", "examples", "nll before", "after", "ECE before", "after"]]
    for task, s in v.tasks.items():
        if (before := s.before_calibration) is not None:
            nll = s.loss if s.nll is None else s.nll
            figures = (before.nll, nll, before.ece, s.ece)
            rows.append([task, _count(s.examples), *(_number(figure, ".4f") for figure in figures)])
    return rows


def of_kinds(v: Verdict) -> list[Table]:
    """A table for each other kind: a row per task with its primary score and its interval, and its other scores."""
    tables = []
    for kind in dict.fromkeys(s.kind for s in v.tasks.values() if s.kind != "classes"):
        primary, *others = kinds.find(kind).SCORES
        rows = [[kind, "examples", "loss", f"{primary} (95 %)", *others]]
        if some := any(s.kind == kind and task in v.derived for task, s in v.tasks.items()):
            rows[0] += ["derived from", f"derived {primary}", "own − derived utility (95 %)", "p"]
        for task, s in v.tasks.items():
            if s.kind == kind:
                interval = _range(s.figure(f"{primary}_low"), s.figure(f"{primary}_high"), ".4f")
                score = f"{_number(s.figure(primary), '.4f')}{interval}"
                values = [_number(s.figure(name), ".4g" if name in ("mae", "rmse") else ".4f") for name in others]
                name = f"{task} ({s.unit})" if s.unit else task
                rows.append([name, _count(s.examples), f"{s.loss:.4f}", score, *values])
                if some:
                    rows[-1] += _derived(v.derived.get(task), primary)
        tables.append(rows)
    return tables


def shifted(v: Verdict) -> Table:
    """A row per task that is judged on the shifted test set, with its primary score there and on the test images."""
    rows = [["task", "score", "test", "shifted test set (95 %)", "difference"]]
    for task, there in (v.shifted.tasks if v.shifted else {}).items():
        primary = next(iter(kinds.find(there.kind).SCORES))
        here, value = v.tasks[task].figure(primary), there.figure(primary)
        interval = _range(there.figure(f"{primary}_low"), there.figure(f"{primary}_high"), ".4f")
        difference = None if here is None or value is None else value - here
        rows.append([task, primary, _number(here, ".4f"), f"{_number(value, '.4f')}{interval}"])
        rows[-1].append(_number(difference, "+.4f"))
    return rows


def _derived(d: OfDerived | None, primary: str) -> list[str]:
    """The derived answer to a task, its primary score and what the own model has more of."""
    if d is None:
        return [NONE] * 4
    gain = NONE if d.gain is None else f"{d.gain:+.4f}{_range(d.gain_low, d.gain_high, '+.4f')}"
    return [d.base, _number(getattr(d, primary, None), ".4f"), gain, _number(d.p_value, ".2g")]


def combined(v: Verdict) -> Table:
    """Rows per task with a combined answer: what it has more of than its own and the derived one, above 0 better."""
    rows = [["combined over", "gain in", "gain (95 %)", "p"]]
    for task, c in v.combined.items():
        utility = _primary(v, task) if _primary(v, task) == "acc" else "utility"
        for name, g in ((f"{task}'s own", c.over_own), (f"{c.base}'s", c.over_derived)):
            gain = f"{g.gain:+.4f}{_range(g.gain_low, g.gain_high, '+.4f')}"
            less = f"{g.nll_gain:+.4f}{_range(g.nll_gain_low, g.nll_gain_high, '+.4f')}"
            rows.append([name, utility, gain, _number(g.p_value, ".2g")])
            rows.append([name, "nll", less, _number(g.nll_p_value, ".2g")])
    return rows


def weights(v: Verdict) -> list[str]:
    """A sentence for each task with a combined answer: its weights and how good it is."""
    lines = []
    for task, c in v.combined.items():
        primary = _primary(v, task)
        score = f"{primary} {_number(getattr(c, primary, None), '.4f')}, nll {c.nll:.4f}"
        lines.append(f"{task} combined, {c.own_weight:g} own + {c.derived_weight:g} {c.base}'s: {score}.")
    return lines


def _primary(v: Verdict, task: str) -> str:
    return next(iter(kinds.find(v.tasks[task].kind).SCORES))


def matrix(related: Relations) -> Table:
    """A row and a column per task: what their training labels say about each other."""
    tasks = list(related.matrix)
    rows = [["", *tasks]]
    for one in tasks:
        cells = [_number(related.matrix[one].get(other), ".3f") if one != other else "" for other in tasks]
        rows.append([one, *cells])
    return rows


def contradictions(v: Verdict) -> list[str]:
    """A sentence for each task that another one implies, where the two contradict each other."""
    lines = []
    for task, d in v.derived.items():
        subset = d.contradict
        if subset is not None and subset.acc is not None and subset.from_acc is not None:
            right = (
                f"{task} is right on {subset.acc:.1%} of them, {d.base} (on its own labels) on {subset.from_acc:.1%}"
            )
            lines.append(
                f"{task} contradicts {d.base} on {subset.images:,} images ({d.contradiction_rate:.2%}): {right}."
            )
    return lines


def study(s: StudyResults) -> Table:
    """A row per arrangement and task, and one per arrangement with its mean gain and its cost."""
    costs = ["multiply-adds", "parameters", "images seen", "training, CPU s", "CPU ms per image"]
    rows = [["arrangement", "task", "score", "skill", "Δ score, % (95 %)", "Δ skill, points (95 %)", *costs]]
    for arrangement in dict.fromkeys(run.arrangement for run in s.runs):
        runs = list(statistics.by_seed(s, arrangement).values())
        own = arrangement == "independent"
        for task in s.tasks:
            scores = [run.tasks[task] for run in runs if task in run.tasks]
            figures = [_mean_sd([score.score for score in scores]), _mean_sd([score.skill for score in scores])]
            gains = [of(s, arrangement, task) for of in (statistics.gains, statistics.skill_gains)]
            deltas = [NONE, NONE] if own else [_gain(values) for values in gains]
            rows.append([arrangement, task, *figures, *deltas, *[""] * len(costs)])
        means = [statistics.mean_gains(s, arrangement, of=of) for of in (statistics.gains, statistics.skill_gains)]
        deltas = [NONE, NONE] if own else [_gain(values) for values in means]
        processor = [run.cpu_seconds for run in runs if run.cpu_seconds is not None]
        spent = f"{mean(processor):.0f}" if processor else NONE
        times = [run.milliseconds_per_image for run in runs if run.milliseconds_per_image is not None]
        cost = [f"{runs[0].multiply_adds:.4e}", f"{runs[0].parameters:,}", f"{runs[0].images_seen:,}", spent]
        rows.append([arrangement, "all", "", "", *deltas, *cost, f"{min(times):.3f}" if times else NONE])
    return rows


def text(table: Table) -> str:
    """Aligned columns for a terminal, a line under the header."""
    header, *lines = aligned(table[0], table[1:]).splitlines()
    return "\n".join([header, "─" * max(map(len, [header, *lines])), *lines])


def markdown(table: Table) -> str:
    """A table for a README."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table]
    return "\n".join([lines[0], "|" + "---|" * len(table[0]), *lines[1:]])


def _range(low: float | None, high: float | None, form: str) -> str:
    return "" if low is None or high is None else f" ({low:{form}} to {high:{form}})"


def _count(examples: int | None) -> str:
    return NONE if examples is None else f"{examples:,}"


def _number(value: float | None, form: str) -> str:
    return NONE if value is None else f"{value:{form}}"


def _mean_sd(defined: Sequence[float | None]) -> str:
    values = [value for value in defined if value is not None]
    if len(values) < 2:
        return f"{values[0]:.4f}" if values else NONE
    return f"{mean(values):.4f} ± {stdev(values):.4f}"


def _gain(values: Sequence[float]) -> str:
    interval: Interval | None = statistics.over_seeds(values)
    if interval is None:
        return NONE
    bounds = _range(interval.low, interval.high, "+.2f") if interval.bounded else ""
    return f"{interval.value:+.2f}{bounds}"
