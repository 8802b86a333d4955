"""From a trained network to the model that is saved: mirror averaging, calibration, and what the kind settles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras

from mtl.config.recipes import Recipe
from mtl.data.store import Examples
from mtl.errors import UserError
from mtl.networks import inference
from mtl.tasks import calibration, kinds
from mtl.tasks.answers import Answers
from mtl.tasks.spec import TaskSpec


@dataclass(frozen=True)
class Finished:
    """A model with what its training and the validation examples decided.

    Attributes:
        model: answers the task.
        task: what its answers mean.
        validation: its answers to the validation examples; calibrated ones are cross-fitted.
        calibration: figures on these before and after; empty where the answers are not calibrated.
    """

    model: keras.Model
    task: TaskSpec
    validation: Answers
    calibration: Mapping[str, float]


def finish(network: keras.Model, task: TaskSpec, recipe: Recipe, validation: Examples) -> Finished:
    """Finish a trained network, as `inference.plain` returns it.

    Where the validation examples do not allow it, nothing is calibrated, and a line says why.
    """
    kind, model = kinds.find(task.kind), inference.finish(network, task, recipe.mirror)
    outputs = inference.predict(model, validation.images)
    answers = Answers(task, validation.labels, outputs, recipe.loss, validation.known)
    figures: dict[str, float] = {}
    if recipe.calibrate != "none" and answers.has_label.any():
        try:
            task = kind.calibrate(answers.judged(), calibration.temperature)
            if task.temperature is not None:
                after = calibration.cross_fitted(answers.judged())
                figures = {"temperature": task.temperature, **_figures(answers, "before"), **_figures(after, "after")}
                model = inference.finish(network, task, recipe.mirror)
                answers = after
        except UserError as error:
            print(f"{task.name}: not calibrated: {error}", flush=True)
            task = answers.task

    def answers_as_saved() -> Answers:
        return replace(answers, task=task, outputs=inference.predict(model, validation.images))

    settled = kind.settle(task, answers_as_saved)
    return Finished(model, settled, replace(answers, task=settled), figures)


def _figures(answers: Answers, when: str) -> dict[str, float]:
    """The loss of the kind in nats and the expected calibration error."""
    judged = answers.judged()
    kind = kinds.find(answers.task.kind)
    figures: dict[str, Any] = {"nll": kind.loss_of(replace(judged, loss="auto")), "ece": kind.judge(judged)["ece"]}
    return {f"{name}_{when}": value for name, value in figures.items()}
