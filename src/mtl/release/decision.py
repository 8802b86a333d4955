"""The decision whether a joint model may become the champion: pure functions of answers to validation images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mtl import evaluation
from mtl.config.gate import Gate
from mtl.errors import UserError
from mtl.tasks import kinds, statistics
from mtl.tasks.answers import Answers
from mtl.tasks.relations import UNRELATED, Relations


@dataclass(frozen=True)
class Required:
    """A score of the candidate, None where it is undefined, and the least value that the gate requires."""

    name: str
    value: float | None
    minimum: float | None


@dataclass(frozen=True)
class Comparison:
    """One task of the candidate. None: the champion is not compared.

    Attributes:
        scores: the primary one, with a minimum of None where none is required, and the others that are required; on
            all validation images of which a label is known.
        examples: how many these are.
        images: number of images on which candidate and champion are compared.
        candidate: mean utility of the candidate on those: of `classes` the accuracy.
        champion: mean utility of the champion on those.
        p_value: `statistics.p_value_of_loss` on those.
    """

    task: str
    scores: tuple[Required, ...]
    examples: int
    images: int | None = None
    candidate: float | None = None
    champion: float | None = None
    p_value: float | None = None


@dataclass(frozen=True)
class Decision:
    """The comparison per task, the contradiction rate (None: no task implies another), and the reasons to refuse."""

    tasks: tuple[Comparison, ...]
    contradictions: float | None
    reasons: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Tell whether there is no reason to refuse the candidate."""
        return not self.reasons


def decide(
    gate: Gate,
    candidate: Mapping[str, Answers],
    champion: Mapping[str, Answers],
    compared: np.ndarray,
    related: Relations = UNRELATED,
) -> Decision:
    """Compare the candidate with the gate and with the champion.

    Args:
        gate: the section promote: of params.yaml.
        candidate: answers of each task on the N validation images.
        champion: answers of the tasks that both have, on those `compared` alone; empty for no comparison.
        compared: indices (M,) of the images that the champion was not trained on.
        related: the relations between the candidate's tasks.

    Raises:
        UserError: no label of a task is known.
    """
    for task, answers in candidate.items():
        if not answers.is_known.any():
            raise UserError(f"{task}: the label of no validation image is known, so that it cannot be judged")
    # The weights of combined answers were fitted on these very images: that says nothing here.
    verdict, minima = evaluation.judge(candidate, related.model_copy(update={"weights": {}})), gate.minima
    rows, reasons = [], []
    for task, answers in candidate.items():
        kind, judged = kinds.find(answers.task.kind), verdict["tasks"][task]
        names = dict.fromkeys([next(iter(kind.SCORES)), *minima.get(task, {})])
        scores = tuple(Required(name, judged.get(name), minima.get(task, {}).get(name)) for name in names)
        row = Comparison(task, scores, judged["examples"])
        for score in scores:
            if score.minimum is not None and score.value is None:
                reasons.append(f"{task}: {score.name} is undefined, as all known labels are the same")
            elif score.minimum is not None and score.value is not None and score.value < score.minimum:
                called = "accuracy" if score.name == "acc" else score.name
                reasons.append(f"{task}: {called} {score.value:.4f} is below {score.minimum:g}")
        if task in champion and champion[task].is_known.any() and gate.significance is not None:
            known = champion[task].has_label
            own, other = kind.utility(answers)[compared][known], kind.utility(champion[task])[known]
            p_value = statistics.p_value_of_loss(own, other)
            ours, theirs = float(own.mean()), float(other.mean())
            row = replace(row, images=len(own), candidate=ours, champion=theirs, p_value=p_value)
            if p_value < gate.significance:
                better = f"{theirs:.4f} against {ours:.4f} on {len(own)} images, p {p_value:.2g}"
                reasons.append(f"{task}: the champion is better ({better})")
        rows.append(row)
    contradictions = verdict.get("contradiction_rate")
    if contradictions is not None and contradictions > gate.contradictions:
        reasons.append(f"contradictions: {contradictions:.4f} of the images, above {gate.contradictions:g}")
    return Decision(tuple(rows), contradictions, tuple(reasons))
