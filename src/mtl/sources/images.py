"""What a source gives: images, labels and where they are from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mtl.errors import UserError

MAX_CLASSES = 256  # labels are uint8


def check_count(where: str, classes: Sequence[str]) -> None:
    """Raise UserError, beginning with `where`, where so many classes cannot be told apart."""
    if len(classes) == 1:
        raise UserError(f"{where}: one class only, {classes[0]!r}; add images of another one, to tell it from")
    if len(classes) > MAX_CLASSES:
        raise UserError(
            f"{where}: {len(classes)} classes; labels are 8-bit numbers, so up to {MAX_CLASSES} are possible"
        )


@dataclass(frozen=True)
class Images:
    """Images uint8 (N, H, W, 3) and labels uint8 (N, 1), as `keras.datasets` gives them.

    `official` is True only where the four arrays are, to the byte, those of the official CIFAR-10 archive;
    `encoding` says what the pixels went through: raw, jpeg, png, mixed or drawn. `files` names the images of each
    split (train and test) where they are files of their own.
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
