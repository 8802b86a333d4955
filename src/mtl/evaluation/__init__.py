"""The joint verdict: pure functions of labels and outputs."""

from mtl.evaluation.verdict import contradictions, flat, judge, relate, tables

__all__ = ["contradictions", "flat", "judge", "relate", "tables"]
