"""Splits: which examples are held out, at random, evenly over classes, or by whole groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mtl.config.params import PATH
from mtl.errors import UserError, one_line
from mtl.sources.loaded import CLASS, Loaded
from mtl.tasks.columns import Split


def hold_out(classes: Sequence[str] | np.ndarray, portion: float, seed: int, prefix: str = "") -> np.ndarray:
    """Choose examples at random, stratified by class.

    Args:
        classes: the class of each training example, (N,).
        portion: number of examples to hold out, or a fraction of them.
        seed: seed of the choice.
        prefix: beginning of an error's message, which says where the count is from; by default data.validation.

    Returns:
        Sorted indices, int64 (count,).

    Raises:
        UserError: too few examples to leave one of every class on both sides.
    """
    from sklearn.model_selection import train_test_split

    count = round(portion * len(classes)) if isinstance(portion, float) else portion
    if count == 0:
        return np.empty(0, np.int64)
    names, labels, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    if not len(names) <= count <= len(labels) - len(names) or sizes.min() < 2:
        raise UserError(
            f"{prefix or f'{PATH}: data.validation:'} {count} of {len(labels)} training images in {len(names)} classes"
            f" (the smallest has {sizes.min()}); hold out 0, or from {len(names)} to {len(labels) - len(names)} where"
            " each class has two"
        )
    _, held_out = train_test_split(np.arange(len(labels)), test_size=count, stratify=labels, random_state=seed)
    return np.sort(held_out)


def with_validation(loaded: Loaded, portion: float, seed: int) -> Loaded:
    """Hold out a portion of the training examples as the split `validation`, unless the source has that split already.

    All stay in the order of the source. Raises UserError as `hold_out`.
    """
    if "validation" in loaded.images:
        return loaded
    classes = loaded.columns["train"][CLASS].to_numpy(zero_copy_only=False)
    held_out = hold_out(classes, portion, seed)
    kept = np.setdiff1d(np.arange(len(classes)), held_out)

    def parted(parts: Mapping[Split, Any], take: Callable[[Any, np.ndarray], Any]) -> dict[Split, Any]:
        return {**parts, "train": take(parts["train"], kept), "validation": take(parts["train"], held_out)}

    return replace(
        loaded,
        images=parted(loaded.images, lambda images, indices: images[indices]),
        columns=parted(loaded.columns, lambda table, indices: table.take(indices)),
        files=loaded.files and parted(loaded.files, lambda names, indices: [names[index] for index in indices]),
    )


def group_numbers(values: Sequence[object]) -> np.ndarray:
    """The number of each example's group, int (N,): that of its value; a gap (None) is a group of its own."""
    names = [f"={value}" if value is not None else f"gap {index}" for index, value in enumerate(values)]
    return np.unique(names, return_inverse=True)[1]


def choose(
    count: int,
    portion: float,
    seed: int,
    place: str,
    strata: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    of: int | None = None,
) -> np.ndarray:
    """Choose examples at random, bool (count,).

    Args:
        count: number of examples to choose from.
        portion: number of those to choose, or a fraction.
        seed: seed of the choice.
        place: key in params.yaml that says the portion, for messages.
        strata: values (count,) that are shared out evenly.
        groups: numbers (count,); examples of one number are all chosen or all left.
        of: the number of which `portion` is a fraction; None: `count`.

    Raises:
        UserError: nothing, or everything, would be chosen, or strata are too small.
    """
    from sklearn.model_selection import train_test_split

    wanted = round(portion * (of or count)) if isinstance(portion, float) else portion
    if not 0 < wanted < count:
        raise UserError(f"{place}: {portion:g} of {of or count} examples leaves a split empty; give another portion")
    if groups is None:
        try:
            _, chosen = train_test_split(np.arange(count), test_size=wanted, stratify=strata, random_state=seed)
        except ValueError as error:
            raise UserError(f"{place}: cannot share the values of data.stratify out: {one_line(error)}") from None
    else:
        chosen = _whole_groups(groups, strata, wanted, seed)
    selected = np.zeros(count, bool)
    selected[chosen] = True
    if selected.all() or not selected.any():
        raise UserError(f"{place}: the groups of data.group are too few or too large to be on two sides")
    return selected


def _whole_groups(groups: np.ndarray, strata: np.ndarray | None, wanted: int, seed: int) -> np.ndarray:
    """Indices of the examples of groups, drawn in turn, that come nearest to `wanted` together.

    A group is taken where that brings both the number of examples and, with `strata`, their shares nearer to what is
    wanted; then more groups are taken for the number alone. scikit-learn's StratifiedGroupKFold knows only portions of
    1 / n.
    """
    names = np.unique(groups)
    stratum = np.zeros(len(groups), int) if strata is None else np.unique(strata, return_inverse=True)[1]
    members = np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups)[names])[:-1])
    aim = np.bincount(stratum) * wanted / len(groups)
    total, chosen = np.zeros(len(aim)), np.zeros(len(names), bool)
    for is_last in (False, True):
        for group in np.random.default_rng(seed).permutation(len(names)):
            after = total + np.bincount(stratum[members[group]], minlength=len(aim))
            is_nearer = abs(after.sum() - wanted) < abs(total.sum() - wanted)
            is_fairer = np.square(after - aim).sum() < np.square(total - aim).sum()
            if not chosen[group] and is_nearer and (is_last or is_fairer) and chosen.sum() < len(names) - 1:
                chosen[group], total = True, after
    return np.flatnonzero(np.isin(groups, names[chosen]))
