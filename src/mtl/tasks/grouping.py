"""Tasks of the kind `classes`: the values of a column, or groups of them, become labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mtl.config.params import MAX_CLASSES, PATH, Classes
from mtl.errors import UserError, nearest
from mtl.tasks import columns
from mtl.tasks.columns import Split
from mtl.tasks.spec import TaskSpec, label_dtype, shorten
from mtl.tasks.targets import Targets

if TYPE_CHECKING:
    import pyarrow as pa


def check_class_count(place: str, classes: Sequence[str]) -> None:
    """Raise UserError, whose message begins with `place`, unless there are from 2 to MAX_CLASSES classes."""
    if len(classes) == 1:
        raise UserError(f"{place}: one class only, {classes[0]!r}; add images of another one, to tell it from")
    if len(classes) > MAX_CLASSES:
        raise UserError(f"{place}: {len(classes):,} classes; up to {MAX_CLASSES:,} can be told apart")


def column_of(name: str, column: str | None, available: Sequence[str]) -> str:
    """The column that a task asks about; where it names none, the only one.

    Raises UserError where the data set does not have it, or where the task names none and there are several.
    """
    if column is None:
        if len(available) == 1:
            return available[0]
        raise UserError(f"{PATH}: tasks.{name}: the data set has several columns; add column: {' | '.join(available)}")
    if column not in available:
        raise UserError(
            f"{PATH}: tasks.{name}.column: the data set has no column {column!r};"
            f" did you mean {nearest(column, available)!r}? It has {', '.join(available)}"
        )
    return column


def check_known(place: str, targets: Mapping[Split, Targets]) -> None:
    """Raise UserError, whose message begins with `place`, where no training or no test example is known."""
    for split in ("train", "test"):
        if not targets[split].known.any():
            raise UserError(f"{place} has no value for any {split} example; a task needs some there")


def group_values(name: str, task: Classes, values: Sequence[str]) -> dict[str, str]:
    """Map each value of the task's column to its group, in the order of `values`.

    Raises UserError where the task names a value that is not there, or leaves one out.
    """
    if task.labels is None:
        return {value: value for value in values}
    group_of = {value: group for group, members in task.labels.items() for value in members}
    unknown = [value for value in group_of if value not in values]
    if unknown:
        raise UserError(
            f"{PATH}: tasks.{name}.labels.{group_of[unknown[0]]}: the data set has no class {unknown[0]!r};"
            f" it has {', '.join(values)}"
        )
    missing = [value for value in values if value not in group_of]
    if missing:
        raise UserError(
            f"{PATH}: tasks.{name}.labels: class {missing[0]!r} is in no group;"
            f" add it to one of {', '.join(task.labels)}"
        )
    return {value: group_of[value] for value in values}


def derive(
    name: str, task: Classes, column: str, splits: Mapping[Split, pa.ChunkedArray]
) -> tuple[TaskSpec, dict[Split, Targets]]:
    """Derive a task and its labels from a column, given by split.

    Raises UserError as `group_values`; where no training or test example is known; where training examples have one
    value or more than MAX_CLASSES; where a value occurs in validation or test alone.
    """
    place = f"{PATH}: tasks.{name}: column {column!r}"
    values = columns.distinct(splits["train"])
    for split in ("train", "test"):
        if splits[split].null_count == len(splits[split]):
            raise UserError(f"{place} has no value for any {split} example; a task needs some there")
    check_class_count(place, values)
    for split, part in splits.items():
        if strangers := [value for value in columns.distinct(part) if value not in set(values)]:
            raise UserError(
                f"{place}: {shorten(strangers)} in {split} alone, where no model could have learned it; move an example"
                " to train, or make it a gap (data.missing)"
            )
    groups = group_values(name, task, values)
    names = tuple(values if task.labels is None else task.labels)
    label_of = {group: label for label, group in enumerate(names)}
    labels = [label_of[group] for group in groups.values()]
    targets = {split: _targets(part, values, labels) for split, part in splits.items()}
    counts = np.bincount(targets["train"].labels[targets["train"].known], minlength=len(names))
    frequencies = tuple((counts / counts.sum()).tolist())
    return TaskSpec(name=name, columns=(column,), names=names, groups=groups, frequencies=frequencies), targets


def _targets(column: pa.ChunkedArray, values: Sequence[str], labels: Sequence[int]) -> Targets:
    """The label of each value of `column`, by `labels`, those of `values`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    positions = pc.index_in(columns.names(column), pa.array(values, pa.string()))
    known = pc.is_valid(positions).to_numpy(zero_copy_only=False)
    of_value = np.array(labels, label_dtype(max(labels) + 1))
    return Targets(of_value[pc.fill_null(positions, 0).to_numpy(zero_copy_only=False)] * known, known)
