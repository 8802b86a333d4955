"""Figures, on Matplotlib: for MLflow runs, and the galleries as files. All else that `dvc plots` draws are CSVs."""

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
MOST_BARS = 100  # classes in the figure of accuracies
WITH_NUMBERS = 40  # a confusion matrix of more classes has no room for numbers


@dataclass(frozen=True)
class Picture:
    """One picture of a gallery: uint8 (H, W, 3), what it shows, and each model's answer with whether it is right."""

    pixels: np.ndarray
    truth: str
    answers: Sequence[tuple[str, bool | None]]


def learning_curves(task: str, history: Sequence[Mapping[str, float]]) -> Figure:
    """Loss and accuracy per epoch, on the training images and, where there are any, on the validation images."""
    figure = _figure(9, 3.5)
    epochs = [row["epoch"] for row in history]
    for axes, key, name in zip(figure.subplots(1, 2), ("loss", "acc"), ("loss", "accuracy"), strict=True):
        axes.plot(epochs, [row[key] for row in history], marker=".", label="training (augmented)")
        if f"val_{key}" in history[0]:
            axes.plot(epochs, [row[f"val_{key}"] for row in history], marker=".", label="validation")
        axes.set(xlabel="epoch", ylabel=name, title=f"{task}: {name}")
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


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


def reliability(task: str, rows: Sequence[Mapping[str, Any]]) -> Figure:
    """The reliability diagram of `statistics.reliability`, over how many images each point is of."""
    figure = _figure(5, 6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], color="grey", linestyle="--", label="as right as it is sure")
    upper.plot([row["confidence"] for row in rows], [row["acc"] for row in rows], marker="o", label=task)
    upper.set(ylabel="accuracy", title=f"{task}: reliability", xlim=(0, 1), ylim=(0, 1.02))
    upper.legend()
    lows = [row["low"] for row in rows]
    lower.bar(lows, [row["images"] for row in rows], [row["high"] - row["low"] for row in rows], align="edge")
    lower.set(xlabel="confidence", ylabel="images", yscale="log")
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    return figure


def per_class(task: str, rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Accuracy on the images of each class with its 95 % interval, of `statistics.per_class`.

    Of more than MOST_BARS classes these are the ones with the lowest accuracies.
    """
    rows = [row for row in rows if row["images"]]
    title = f"{task}: accuracy per class"
    if len(rows) > MOST_BARS:
        title += f", the lowest {MOST_BARS} of {len(rows)}"
        rows = sorted(rows, key=lambda row: row["acc"])[:MOST_BARS]
    figure = _figure(6, 1.2 + 0.3 * len(rows))
    axes = figure.subplots()
    acc, low, high = (np.array([row[key] for row in rows]) for key in ("acc", "acc_low", "acc_high"))
    axes.barh(range(len(rows)), acc, xerr=np.clip([acc - low, high - acc], 0, None), color="#4c78a8", ecolor="k")
    axes.set_yticks(range(len(rows)), [row["class"] for row in rows], parse_math=False)
    axes.invert_yaxis()
    axes.set(xlabel="accuracy, 95 % interval", title=title, xlim=(0, 1))
    axes.grid(axis="x", alpha=0.3)
    return figure


def gallery(title: str, pictures: Sequence[Picture]) -> Figure:
    """Pictures in rows of COLUMNS, each captioned with what it shows and each model's answer, in red where wrong."""
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


def of_tables(tables: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]) -> dict[str, Figure]:
    """A figure `<kind>/<task>` for each table of `evaluation.tables`."""
    draw = {"confusion": confusion, "reliability": reliability, "per_class": per_class}
    return {
        f"{kind}/{task}": draw[kind](task, rows) for kind, of_task in tables.items() for task, rows in of_task.items()
    }


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
    """Lines of text below the axes, each in its colour."""
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
