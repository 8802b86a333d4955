"""The joint verdict: pure functions of labels and probabilities."""

from mtl.evaluation.answers import Answers, contradictions, relate
from mtl.evaluation.verdict import flat, judge, tables

__all__ = ["Answers", "contradictions", "flat", "judge", "relate", "tables"]
