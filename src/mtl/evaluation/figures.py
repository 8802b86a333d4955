"""Figures, on Matplotlib: galleries, and the confusion matrix for TensorBoard. `dvc plots` draws tables itself."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 6  # of a gallery
CELL, MARGIN, LINE, TITLE = 2.1, 0.1, 0.16, 0.5  # inches: of a picture, around it, of a line below it, of the heading
WRONG, RIGHT = "#b3261e", "#1b6e3c"
CAPTION = 28  # letters of size 8 below a picture
WITH_NUMBERS = 40  # a confusion matrix of more classes has no room for numbers


@dataclass(frozen=True)
class Picture:
    """One picture of a gallery: uint8 (H, W, 3), its label, and each model's answer with whether it is right."""

    pixels: np.ndarray
    truth: str
    answers: Sequence[tuple[str, bool | None]]


def confusion(task: str, rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The confusion matrix of `statistics.confusion`, coloured by the share of each actual class."""
    names = list(dict.fromkeys(row["actual"] for row in rows))
    many = len(names) > WITH_NUMBERS
    side = min(max(4.5, 2.5 + 0.5 * len(names)), 24)
    figure = _figure(side + 1, side)
    axes = figure.subplots()
    shares = np.array([row["share"] or 0.0 for row in rows]).reshape(len(names), len(names))
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the actual class", shrink=0.8)
    for row, share, (i, j) in zip(rows, shares.flat, np.ndindex(shares.shape), strict=True):
        if row["images"] and not many:
            axes.text(j, i, str(row["images"]), ha="center", va="center", size=8, color="white" if share > 0.5 else "k")
    size = 5 if many else 9
    axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 4 else 0, parse_math=False, size=size)
    axes.set_yticks(range(len(names)), names, parse_math=False, size=size)
    axes.set(xlabel="predicted", ylabel="actual", title=f"{task}: images, actual by predicted")
    return figure


def gallery(title: str, pictures: Sequence[Picture]) -> Figure:
    """Pictures in rows of COLUMNS, each captioned with its label and each model's answer, in red where wrong."""
    rows = -(-len(pictures) // COLUMNS)
    lines = 1 + max((len(picture.answers) for picture in pictures), default=0)
    height = CELL + LINE * lines  # of a row, in inches
    figure = _figure(CELL * COLUMNS, TITLE + height * rows, layout=None)
    width, total = figure.get_size_inches()
    figure.suptitle(title if pictures else f"{title}: there is none", y=1 - TITLE / 2 / total, va="center")
    for index, picture in enumerate(pictures):
        row, column = divmod(index, COLUMNS)
        left, bottom = column * CELL + MARGIN, total - TITLE - row * height - CELL + MARGIN
        side = CELL - 2 * MARGIN
        axes = figure.add_axes((left / width, bottom / total, side / width, side / total), anchor="S")
        axes.imshow(picture.pixels, interpolation="bicubic")
        axes.axis("off")
        _caption(axes, [(picture.truth, "black"), *((text, _colour(is_right)) for text, is_right in picture.answers)])
    return figure


def png(figure: Figure) -> bytes:
    """The figure as PNG, the same bytes every time."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100, metadata={"Software": None})
    return content.getvalue()


def _figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout)


def _colour(is_right: bool | None) -> str:
    """The colour of an answer; black where the right one is unknown."""
    return "black" if is_right is None else RIGHT if is_right else WRONG


def _caption(axes: Axes, lines: Sequence[tuple[str, str]]) -> None:
    """Write lines of text below the axes, each in its colour."""
    for index, (text, colour) in enumerate(lines):
        axes.annotate(
            text,
            (0.5, 0),
            xytext=(0, -3 - 72 * LINE * index),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            va="top",
            size=min(8, 8 * CAPTION / len(text)),
            weight="normal" if index else "bold",
            color=colour,
            parse_math=False,
        )
