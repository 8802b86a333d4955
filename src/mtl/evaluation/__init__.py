"""The joint verdict: pure functions of labels and probabilities."""

from mtl.evaluation.answers import Answers, contradictions, relate
from mtl.evaluation.verdict import MOST_IN_CONFUSION, flat, judge, tables

__all__ = ["MOST_IN_CONFUSION", "Answers", "contradictions", "flat", "judge", "relate", "tables"]
