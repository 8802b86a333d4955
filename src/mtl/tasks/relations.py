"""Relations: what the answer to one task says about another's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mtl.tasks.spec import TaskSpec


@dataclass(frozen=True)
class Relation:
    """A functional relation: each label of the task `base` goes with one label of another task.

    `labels`, int (K_base,), holds that label.
    """

    base: str
    labels: np.ndarray


def relate(base: TaskSpec, target: TaskSpec) -> Relation | None:
    """The relation by which `base` implies `target`.

    None where some label of `base` says nothing certain about `target`, where the two distinguish the same things, and
    where they are about different columns or values.
    """
    if base.kind != "classes" or target.kind != "classes":
        return None
    if base.columns != target.columns or base.groups.keys() != target.groups.keys():
        return None
    pairs = {(name, target.groups[value]) for value, name in base.groups.items()}
    if len(pairs) != len(base.names) or len(base.names) <= len(target.names):
        return None
    name_of = dict(pairs)
    return Relation(base.name, np.array([target.names.index(name_of[name]) for name in base.names]))


def find(target: str, specs: Mapping[str, TaskSpec]) -> Relation | None:
    """The relation of `target` to the task with the most labels among those that imply it, the first of several."""
    related = [
        replace(relation, base=name)
        for name, spec in specs.items()
        if (relation := relate(spec, specs[target])) is not None
    ]
    return max(related, key=lambda relation: len(relation.labels), default=None)


def find_all(specs: Mapping[str, TaskSpec]) -> dict[str, Relation]:
    """`find` for each task that another one implies."""
    return {task: relation for task in specs if (relation := find(task, specs)) is not None}


def contradictions(relations: Mapping[str, Relation], labels: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """For each related task the examples where the base's label implies another than the task's own, bool (N,).

    Args:
        relations: as `find_all` returns them.
        labels: the label that each task's model names for each example, int (N,).
    """
    return {task: relation.labels[labels[relation.base]] != labels[task] for task, relation in relations.items()}


def group_sums(probabilities: np.ndarray, relation: Relation) -> np.ndarray:
    """The answer that a relation derives: probabilities (N, K_base) summed over the labels of the base, (N, K)."""
    return probabilities @ np.eye(relation.labels.max() + 1)[relation.labels]
