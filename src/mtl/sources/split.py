"""Validation examples, held out of the training examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mtl.config.params import PATH
from mtl.errors import UserError
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
