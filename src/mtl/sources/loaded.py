"""A data set in memory, as a source returns it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mtl.tasks.columns import Split

if TYPE_CHECKING:
    import pyarrow as pa

CLASS = "class"  # the one column of a data set of images in folders by class


@dataclass(frozen=True)
class Loaded:
    """Images and columns of each split, train and test at least; the validation examples are held out of train later.

    Attributes:
        name: what the data set is called.
        encoding: the format of the image files: raw, jpeg, png, mixed or drawn.
        images: uint8 (N, H, W, 3) of each split.
        columns: of each split a table with a row per image; a gap is null.
        official: for the splits whose images are those of the official data set to the byte, which of them they are.
        files: the names of the image files of each split; None where the images are not files of their own.
    """

    name: str
    encoding: str
    images: Mapping[Split, np.ndarray]
    columns: Mapping[Split, pa.Table]
    official: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[Split, Sequence[str]] | None = None


@dataclass(frozen=True)
class Shifted:
    """A second test set in memory, on which the models are judged apart.

    Attributes:
        name: what it is called.
        encoding: as of `Loaded`.
        images: uint8 (N, H, W, 3), of the shape of the data set's.
        columns: a table with a row per image and the columns of the data set.
    """

    name: str
    encoding: str
    images: np.ndarray
    columns: pa.Table

    def description(self) -> dict[str, str | int]:
        """What it is, as JSON."""
        return {"name": self.name, "encoding": self.encoding, "examples": len(self.images)}


def class_column(labels: np.ndarray, classes: Sequence[str]) -> pa.Table:
    """The table whose one column is the name of each label: integers (N,) or (N, 1), numbers in `classes`."""
    import pyarrow as pa

    return pa.table({CLASS: pa.DictionaryArray.from_arrays(labels.ravel(), pa.array(classes)).cast(pa.string())})
