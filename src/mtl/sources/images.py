"""Images and labels in memory, as a source returns them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mtl.errors import UserError

MAX_CLASSES = 256  # labels are uint8


def check_class_count(source: str, classes: Sequence[str]) -> None:
    """Raise UserError, whose message begins with `source`, unless there are from 2 to MAX_CLASSES classes."""
    if len(classes) == 1:
        raise UserError(f"{source}: one class only, {classes[0]!r}; add images of another one, to tell it from")
    if len(classes) > MAX_CLASSES:
        raise UserError(
            f"{source}: {len(classes)} classes; labels are 8-bit numbers, so up to {MAX_CLASSES} are possible"
        )


@dataclass(frozen=True)
class LoadedImages:
    """Images uint8 (N, H, W, 3) and labels uint8 (N, 1), as `keras.datasets` gives them.

    `official` is True only where the four arrays are, to the byte, those of the official CIFAR-10 archive;
    `encoding` is the format of the files: raw, jpeg, png, mixed or drawn. `files` holds the names of the image files of
    each split (train and test), and is None where the images are not files of their own.
    """

    name: str
    classes: tuple[str, ...]
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    encoding: str
    official: bool = False
    files: Mapping[str, Sequence[str]] | None = None
