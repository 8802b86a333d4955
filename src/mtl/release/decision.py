"""The decision whether a joint model may become the champion: pure functions of answers to validation images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mtl import evaluation
from mtl.config.gate import Gate
from mtl.evaluation import Answers


@dataclass(frozen=True)
class Comparison:
    """One task of the candidate. None: no minimum is set, or the champion is not compared.

    Attributes:
        accuracy: of the candidate, on all validation images.
        minimum: accuracy that the gate requires.
        images: number of images on which candidate and champion are compared.
        candidate: accuracy of the candidate on those.
        champion: accuracy of the champion on those.
        p_value: `loss_p_value` on those.
    """

    task: str
    accuracy: float
    minimum: float | None = None
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
    """
    verdict = evaluation.judge(candidate)
    rows, reasons = [], []
    for task, answers in candidate.items():
        accuracy, minimum = verdict["tasks"][task]["acc"], gate.accuracy.get(task)
        row = Comparison(task, accuracy, minimum)
        if minimum is not None and accuracy < minimum:
            reasons.append(f"{task}: accuracy {accuracy:.4f} is below {minimum:g}")
        if task in champion and gate.significance is not None:
            known = champion[task].is_known
            own, other = answers.right[compared][known], champion[task].right[known]
            p_value = loss_p_value(own, other)
            row = Comparison(task, accuracy, minimum, len(own), float(own.mean()), float(other.mean()), p_value)
            if p_value < gate.significance:
                better = f"{row.champion:.4f} against {row.candidate:.4f} on {len(own)} images, p {p_value:.2g}"
                reasons.append(f"{task}: the champion is better ({better})")
        rows.append(row)
    contradictions = verdict.get("contradiction_rate")
    if contradictions is not None and contradictions > gate.contradictions:
        reasons.append(f"contradictions: {contradictions:.4f} of the images, above {gate.contradictions:g}")
    return Decision(tuple(rows), contradictions, tuple(reasons))
