"""Statistics of one task's answers, and of two models' answers to the same images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest, entropy, norm
from sklearn.metrics import confusion_matrix

BINS = 15  # as Guo et al. count them
Row = dict[str, Any]


def wilson(right: int, images: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of the proportion `right` / `images`."""
    interval = binomtest(int(right), int(images)).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def nll_of_frequencies(labels: np.ndarray) -> float:
    """The NLL in nats of always answering with the frequencies of `labels` (N,): their entropy."""
    return float(entropy(np.bincount(labels)))


def reliability(confidence: np.ndarray, right: np.ndarray) -> list[Row]:
    """The reliability diagram: for each of BINS equal intervals (low, high] of confidence with an image in it, a row.

    Args:
        confidence: the probability of the answer, (N,).
        right: whether the answer was right, bool (N,).

    Returns:
        Rows with `low`, `high`, `images`, and the means `confidence` and `acc` of the images.
    """
    of_image = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    rows = []
    for index in np.unique(of_image):
        in_bin = of_image == index
        rows.append(
            {
                "low": round(int(index) / BINS, 4),
                "high": round((int(index) + 1) / BINS, 4),
                "images": int(in_bin.sum()),
                "confidence": float(confidence[in_bin].mean()),
                "acc": float(right[in_bin].mean()),
            }
        )
    return rows


def calibration_error(rows: Sequence[Row]) -> float:
    """Expected calibration error of `reliability`'s rows: |acc - confidence|, weighted by the number of images.

    Guo et al., On calibration of modern neural networks, ICML 2017.
    """
    images = sum(row["images"] for row in rows)
    return sum(row["images"] * abs(row["acc"] - row["confidence"]) for row in rows) / images


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: Sequence[str]) -> list[Row]:
    """The confusion matrix as a row per cell, in label order: `actual`, `predicted`, `images`, `share` of the actual.

    `share` is None for a class without images.
    """
    counts = confusion_matrix(labels, predicted, labels=range(len(classes)))
    return [
        {
            "actual": actual,
            "predicted": answer,
            "images": int(counts[i, j]),
            "share": float(counts[i, j] / counts[i].sum()) if counts[i].any() else None,
        }
        for i, actual in enumerate(classes)
        for j, answer in enumerate(classes)
    ]


def per_class(labels: np.ndarray, predicted: np.ndarray, classes: Sequence[str]) -> list[Row]:
    """A row per class with its `images`, the accuracy `acc` on them, and its 95 % interval `acc_low`, `acc_high`.

    The three are None for a class without images.
    """
    rows = []
    for index, name in enumerate(classes):
        in_class = labels == index
        images, right = int(in_class.sum()), int((predicted[in_class] == index).sum())
        low, high = wilson(right, images) if images else (None, None)
        acc = right / images if images else None
        rows.append({"class": name, "images": images, "acc": acc, "acc_low": low, "acc_high": high})
    return rows


def paired(own: np.ndarray, other: np.ndarray) -> Row:
    """The difference in how often `own` and `other` are right on the same images; both bool (N,).

    Returns:
        `gain`, the difference of the accuracies; its 95 % interval `gain_low`, `gain_high` (Wald's for paired
        proportions after adding 1/2 to each of the four cells: Agresti and Min, Statistics in Medicine 24, 2005);
        `p_value` of McNemar's exact test (binomial, two-sided, on the images where one alone is right); and these
        images' counts `only_own` and `only_derived`.
    """
    only_own, only_other = int((own & ~other).sum()), int((other & ~own).sum())
    b, c, n = only_own + 0.5, only_other + 0.5, len(own) + 2
    half = norm.ppf(0.975) * math.sqrt(b + c - (b - c) ** 2 / n) / n
    discordant = only_own + only_other
    return {
        "gain": (only_own - only_other) / len(own),
        "gain_low": float(max(-1.0, (b - c) / n - half)),
        "gain_high": float(min(1.0, (b - c) / n + half)),
        "p_value": float(binomtest(only_own, discordant).pvalue) if discordant else 1.0,
        "only_own": only_own,
        "only_derived": only_other,
    }
