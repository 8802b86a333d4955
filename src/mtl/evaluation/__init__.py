"""The joint verdict: pure functions of labels and outputs."""

from mtl.evaluation.verdict import flat, judge, judge_shifted, tables

__all__ = ["flat", "judge", "judge_shifted", "tables"]
