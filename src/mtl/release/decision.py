"""The decision whether a joint model may become the champion: pure functions of answers to validation images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mtl import evaluation
from mtl.config.gate import Gate
from mtl.errors import UserError
from mtl.evaluation import Answers


@dataclass(frozen=True)
class Required:
    """A score of the candidate, None where it is undefined, and the least value that the gate requires."""

    name: str
    value: float | None
    minimum: float


@dataclass(frozen=True)
class Comparison:
    """One task of the candidate. None: no minimum is set, or the champion is not compared.

    Attributes:
        accuracy: of the candidate, on all validation images whose label is known.
        examples: how many these are.
        minimum: accuracy that the gate requires.
        others: the other scores that it requires.
        images: number of images on which candidate and champion are compared.
        candidate: accuracy of the candidate on those.
        champion: accuracy of the champion on those.
        p_value: `loss_p_value` on those.
    """

    task: str
    accuracy: float
    examples: int
    minimum: float | None = None
    others: tuple[Required, ...] = ()
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


def loss_p_value(candidate: np.ndarray, champion: np.ndarray) -> float:
    """The p-value of McNemar's exact one-sided test that the champion is better than the candidate.

    Args:
        candidate: images that the candidate labels correctly, bool (N,).
        champion: the same of the champion, on the same images, bool (N,).

    Returns:
        P(X >= b) for X binomial with n = b + c and 1/2, where the champion alone is correct on b images and the
        candidate alone on c (McNemar, Psychometrika 12, 1947, with the exact distribution); 1 where they never differ.
    """
    from scipy.stats import binomtest

    champion_alone, candidate_alone = int((champion & ~candidate).sum()), int((candidate & ~champion).sum())
    discordant = champion_alone + candidate_alone
    return float(binomtest(champion_alone, discordant, alternative="greater").pvalue) if discordant else 1.0


def decide(
    gate: Gate, candidate: Mapping[str, Answers], champion: Mapping[str, Answers], compared: np.ndarray
) -> Decision:
    """Compare the candidate with the gate and with the champion.

    Args:
        gate: the section promote: of params.yaml.
        candidate: answers of each task on the N validation images.
        champion: answers of the tasks that both have, on those `compared` alone; empty for no comparison.
        compared: indices (M,) of the images that the champion was not trained on.

    Raises:
        UserError: no label of a task is known.
    """
    for task, answers in candidate.items():
        if not answers.is_known.any():
            raise UserError(f"{task}: the label of no validation image is known, so that it cannot be judged")
    verdict, minima = evaluation.judge(candidate), gate.minima
    rows, reasons = [], []
    for task, answers in candidate.items():
        scores, least = verdict["tasks"][task], dict(minima.get(task, {}))
        accuracy, minimum = scores["acc"], least.pop("acc", None)
        others = tuple(Required(name, scores[name], value) for name, value in least.items())
        row = Comparison(task, accuracy, scores["examples"], minimum, others)
        if minimum is not None and accuracy < minimum:
            reasons.append(f"{task}: accuracy {accuracy:.4f} is below {minimum:g}")
        for score in others:
            if score.value is None:
                reasons.append(f"{task}: {score.name} is undefined, as all known labels are the same")
            elif score.value < score.minimum:
                reasons.append(f"{task}: {score.name} {score.value:.4f} is below {score.minimum:g}")
        known = champion[task].is_known if task in champion else np.zeros(0, bool)
        if known.any() and gate.significance is not None:
            own, other = answers.right[compared][known], champion[task].right[known]
            p_value = loss_p_value(own, other)
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
