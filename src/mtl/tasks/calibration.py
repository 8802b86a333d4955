"""Calibration: answers as sure as they are right, by what the validation examples show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mtl.errors import UserError
from mtl.tasks import kinds
from mtl.tasks.answers import Answers

LOWEST, HIGHEST = 0.1, 10.0  # temperatures that are tried


def tempered(answers: Answers, temperature: float) -> Answers:
    """The answers with their logarithms, or those of their odds, divided by a temperature."""
    kind, task = kinds.find(answers.task.kind), answers.task
    linked = kind.link(task, answers.outputs.astype(np.float64)) / temperature
    return replace(answers, outputs=np.asarray(kind.inverse_link(task, linked)))


def temperature(answers: Answers) -> float:
    """The temperature of the least loss on judged answers, to four digits (Guo et al., ICML 2017).

    Raises UserError where the answers are all the same, or no temperature between LOWEST and HIGHEST is the best.
    """
    from scipy.optimize import minimize_scalar

    kind = kinds.find(answers.task.kind)
    if np.ptp(answers.outputs, axis=0).max() < 1e-6:
        raise UserError("the model gives every validation image the same answer")
    bounds = np.log([LOWEST, HIGHEST])

    def loss(logarithm: float) -> float:
        return kind.loss_of(replace(tempered(answers, np.exp(logarithm)), loss="auto"))

    best = float(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x)
    if not bounds[0] + 0.01 < best < bounds[1] - 0.01:
        raise UserError(
            f"on {len(answers.labels)} validation images no temperature from {LOWEST} to {HIGHEST} is the best; hold"
            " more out"
        )
    return float(f"{np.exp(best):.4g}")


def before(answers: Answers) -> Answers | None:
    """The answers as they were before calibration; None where they are not calibrated by a temperature."""
    task = answers.task
    if task.temperature is None:
        return None
    plain = task.model_copy(update={"temperature": None})
    return replace(tempered(answers, 1 / task.temperature), task=plain)


def cross_fitted(answers: Answers) -> Answers:
    """Judged answers, not calibrated yet, each half tempered by what the other half shows.

    So nothing is judged on the examples that it was fitted on. Halves are every second example.
    """
    outputs = np.empty(answers.outputs.shape)
    for half in (slice(0, None, 2), slice(1, None, 2)):
        index = np.arange(len(outputs))
        other = np.setdiff1d(index, index[half])
        outputs[half] = tempered(answers.at(index[half]), temperature(answers.at(other))).outputs
    return replace(answers, outputs=outputs)
