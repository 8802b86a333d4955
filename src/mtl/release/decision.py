"""Whether a joint model may become the champion: pure functions of answers to the validation images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mtl import evaluation
from mtl.config.gate import Gate
from mtl.evaluation import Answers


@dataclass(frozen=True)
class Comparison:
    """One task of the candidate. What does not apply is None: no minimum set, or the champion is not compared.

    Attributes:
        accuracy: of the candidate, on all validation images.
        minimum: what the gate asks for.
        images: on how many images candidate and champion are compared.
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
    """The comparison per task, the contradiction rate (None: no task implies another), and what speaks against."""

    tasks: tuple[Comparison, ...]
    contradictions: float | None
    reasons: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons


def loss_p_value(candidate: np.ndarray, champion: np.ndarray) -> float:
    """McNemar's exact test, one-sided: how probable so large a difference in the champion's favour is by chance.

    Args:
        candidate: whether the candidate is right, bool (N,).
        champion: whether the champion is right on the same images, bool (N,).

    Returns:
        P(X >= b) for X binomial with n = b + c and 1/2, where the champion alone is right on b images and the candidate
        alone on c (McNemar, Psychometrika 12, 1947, with the exact distribution); 1 where they never differ.
    """
    from scipy.stats import binomtest

    champion_alone, candidate_alone = int((champion & ~candidate).sum()), int((candidate & ~champion).sum())
    discordant = champion_alone + candidate_alone
    return float(binomtest(champion_alone, discordant, alternative="greater").pvalue) if discordant else 1.0


def decide(
    gate: Gate, candidate: Mapping[str, Answers], champion: Mapping[str, Answers], compared: np.ndarray
) -> Decision:
    """Hold the candidate against the gate and against the champion.

    Args:
        gate: what is asked for.
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
            mine, theirs = right(answers)[compared], right(champion[task])
            p_value = loss_p_value(mine, theirs)
            row = Comparison(task, accuracy, minimum, len(mine), float(mine.mean()), float(theirs.mean()), p_value)
            if p_value < gate.significance:
                better = f"{row.champion:.4f} against {row.candidate:.4f} on {len(mine)} images, p {p_value:.2g}"
                reasons.append(f"{task}: the champion is better ({better})")
        rows.append(row)
    contradictions = verdict.get("contradiction_rate")
    if contradictions is not None and contradictions > gate.contradictions:
        reasons.append(f"contradictions: {contradictions:.4f} of the images, above {gate.contradictions:g}")
    return Decision(tuple(rows), contradictions, tuple(reasons))


def right(answers: Answers) -> np.ndarray:
    """On which images a model is right, bool (N,)."""
    return answers.probabilities.argmax(axis=1) == answers.labels
