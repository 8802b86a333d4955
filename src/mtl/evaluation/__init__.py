"""The joint verdict: pure functions of labels and probabilities."""

from mtl.evaluation.answers import Answers, finest_base, group_sums, implied
from mtl.evaluation.examples import contradictions, mistakes
from mtl.evaluation.verdict import flat, judge, tables

__all__ = [
    "Answers",
    "contradictions",
    "finest_base",
    "flat",
    "group_sums",
    "implied",
    "judge",
    "mistakes",
    "tables",
]
