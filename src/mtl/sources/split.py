"""Validation images, held out of the training images."""

from __future__ import annotations

import numpy as np

from mtl.config.params import PATH
from mtl.errors import UserError


def hold_out(y: np.ndarray, count: int, seed: int, prefix: str = f"{PATH}: data.validation:") -> np.ndarray:
    """Choose `count` images at random, stratified by class.

    Args:
        y: labels of the training images, uint8 (N, 1).
        count: number of images to hold out.
        seed: seed of the choice.
        prefix: beginning of an error's message, which says where the count is from.

    Returns:
        Sorted indices, int64 (count,).

    Raises:
        UserError: too few images to leave one of every class on both sides.
    """
    from sklearn.model_selection import train_test_split

    if count == 0:
        return np.empty(0, np.int64)
    classes, sizes = np.unique(y, return_counts=True)
    if not len(classes) <= count <= len(y) - len(classes) or sizes.min() < 2:
        raise UserError(
            f"{prefix} {count} of {len(y)} training images in {len(classes)} classes (the smallest has"
            f" {sizes.min()}); hold out 0, or from {len(classes)} to {len(y) - len(classes)} where each class has two"
        )
    _, held_out = train_test_split(np.arange(len(y)), test_size=count, stratify=y.ravel(), random_state=seed)
    return np.sort(held_out)
