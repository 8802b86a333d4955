"""Combined answers: a task's own answer and the one that another task's model implies, weighted against each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mtl.tasks import kinds
from mtl.tasks.answers import Answers
from mtl.tasks.spec import TaskSpec

MOST = 10.0  # of a weight: a few examples that both answer rightly would have any
STARTS = ((1.0, 0.0), (0.5, 0.5))

Weights = tuple[float, float]  # of the own answer and of the derived one


def combine(spec: TaskSpec, own: np.ndarray, derived: np.ndarray, weights: Weights) -> np.ndarray:
    """The weighted sum of two answers to a task on the scale of its kind's link function, float64 (N, K).

    Of `classes` p ∝ own^a · derived^b, of `multilabel` the same of the odds, of `value` the weighted mean of the
    standardised numbers. Both answers are (N, K).
    """
    kind = kinds.find(spec.kind)
    mine, other = (kind.link(spec, np.asarray(outputs, np.float64)) for outputs in (own, derived))
    return np.asarray(kind.inverse_link(spec, weights[0] * mine + weights[1] * other))


def fit_weights(own: Answers, derived: np.ndarray) -> Weights:
    """The weights (a, b) of the least loss of the combined answer, to four digits.

    Args:
        own: the own model's answers to examples of which some have a label; the others are left out.
        derived: the derived answers to the same examples, (N, K).

    Returns:
        Weights from 0 to MOST; of `value` a from 0 to 1 and b = 1 - a. On these examples the combined answer has no
        larger loss than either alone.
    """
    from scipy.optimize import minimize, minimize_scalar

    known = own.has_label
    judged, other = replace(own, loss="auto").at(known).judged(), derived[known]
    kind, spec = kinds.find(own.task.kind), own.task

    def loss(weights: Weights) -> float:
        return kind.loss_of(replace(judged, outputs=combine(spec, judged.outputs, other, weights)))

    if spec.kind == "value":  # weights of another sum would move and stretch the numbers
        a = float(minimize_scalar(lambda a: loss((a, 1 - a)), bounds=(0, 1), method="bounded").x)
        fitted = [(round(a, 4), round(1 - a, 4))]
    else:
        bounds = [(0.0, MOST)] * 2
        found = [minimize(lambda w: loss((w[0], w[1])), start, bounds=bounds, method="L-BFGS-B").x for start in STARTS]
        fitted = [(float(f"{a:.4g}"), float(f"{b:.4g}")) for a, b in found]
    return min([(1.0, 0.0), (0.0, 1.0), *fitted], key=loss)  # rounded, neither may be beaten by one alone
