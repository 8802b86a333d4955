"""What a source gives: images, labels and where they are from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Images:
    """Images uint8 (N, H, W, 3) and labels uint8 (N, 1), as `keras.datasets` gives them.

    `official` is True only where the four arrays are, to the byte, those of the official CIFAR-10 archive;
    `encoding` says what the pixels went through: raw, jpeg, png, mixed or drawn.
    """

    name: str
    classes: tuple[str, ...]
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    encoding: str
    official: bool = False
