"""The joint verdict: pure functions of labels and outputs."""

from mtl.evaluation.verdict import flat, judge, tables

__all__ = ["flat", "judge", "tables"]
