"""The answers of a task's model to some examples."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mtl.config.recipes import LossName
from mtl.tasks.spec import TaskSpec
from mtl.tasks.targets import Targets


@dataclass(frozen=True)
class Answers:
    """The answers of one task's model to some examples, with the right ones where these are known.

    Attributes:
        task: what the answers mean.
        labels: the right labels, as `Targets` has them.
        outputs: of the network, float32 (N, K).
        loss: name of the recipe's loss; `auto`: the kind's.
        known: which labels are known, bool in the shape of the labels; None: all.
    """

    task: TaskSpec
    labels: np.ndarray
    outputs: np.ndarray
    loss: LossName | Literal["auto"] = "auto"
    known: np.ndarray | None = None

    @property
    def is_known(self) -> np.ndarray:
        """Which labels are known, bool in the shape of the labels."""
        return np.ones(self.labels.shape, bool) if self.known is None else self.known

    @property
    def has_label(self) -> np.ndarray:
        """The examples of which a label is known, bool (N,)."""
        return Targets(self.labels, self.is_known).any_known

    def at(self, examples: np.ndarray) -> Answers:
        """The answers to the examples at these indices, or those selected by bool (N,)."""
        known = None if self.known is None else self.known[examples]
        return replace(self, labels=self.labels[examples], outputs=self.outputs[examples], known=known)

    def judged(self) -> Answers:
        """Those of the answers of whose examples a label is known; `known` is None where all their labels are."""
        answers = self if self.known is None or self.has_label.all() else self.at(self.has_label)
        return replace(answers, known=None) if answers.is_known.all() else answers
