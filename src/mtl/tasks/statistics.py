"""Statistics of one task's answers, and of two models' answers to the same examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

BINS = 15  # as Guo et al. count them
SAMPLES = 500  # of a bootstrap
FLIPS = 9_999  # of a permutation test
Row = dict[str, Any]


def wilson(right: int, images: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of the proportion `right` / `images`."""
    from scipy.stats import binomtest

    interval = binomtest(int(right), int(images)).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def nll_of_frequencies(labels: np.ndarray) -> float:
    """The NLL in nats of always answering with the frequencies of `labels` (N,): their entropy."""
    from scipy.stats import entropy

    return float(entropy(np.bincount(labels)))


def reliability(confidence: np.ndarray, right: np.ndarray) -> list[Row]:
    """The reliability diagram: for each of BINS equal intervals (low, high] of confidence with an image in it, a row.

    Args:
        confidence: the probability of the answer, (N,).
        right: whether the answer was right, bool (N,).

    Returns:
        Rows with `answers` (`as given`), `low`, `high`, `images`, and the means `confidence` and `acc` of the images.
    """
    of_image = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    rows = []
    for index in np.unique(of_image):
        in_bin = of_image == index
        rows.append(
            {
                "answers": "as given",
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
    from sklearn.metrics import confusion_matrix

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


def paired(own: np.ndarray, other: np.ndarray, names: tuple[str, str] = ("own", "derived")) -> Row:
    """The difference in how often `own` and `other`, called by `names`, are right on the same images; both bool (N,).

    Returns:
        `gain`, the difference of the accuracies; its 95 % interval `gain_low`, `gain_high` (Wald's for paired
        proportions after adding 1/2 to each of the four cells: Agresti and Min, Statistics in Medicine 24, 2005);
        `p_value` of McNemar's exact test (binomial, two-sided, on the images where one alone is right); and these
        images' counts, by the names `only_own` and `only_derived`.
    """
    from scipy.stats import binomtest, norm

    only_own, only_other = int((own & ~other).sum()), int((other & ~own).sum())
    b, c, n = only_own + 0.5, only_other + 0.5, len(own) + 2
    half = norm.ppf(0.975) * math.sqrt(b + c - (b - c) ** 2 / n) / n
    discordant = only_own + only_other
    return {
        "gain": (only_own - only_other) / len(own),
        "gain_low": float(max(-1.0, (b - c) / n - half)),
        "gain_high": float(min(1.0, (b - c) / n + half)),
        "p_value": float(binomtest(only_own, discordant).pvalue) if discordant else 1.0,
        f"only_{names[0]}": only_own,
        f"only_{names[1]}": only_other,
    }


def bootstrap(count: int, score: Callable[[np.ndarray], float | None]) -> tuple[float, float]:
    """The 95 % percentile interval of a score over SAMPLES bootstrap samples of examples, always the same ones.

    Args:
        count: the number of examples.
        score: of the examples at some indices, int (count,); samples in which it is undefined (None) are left out.
    """
    rng = np.random.default_rng(0)
    drawn = (score(rng.integers(count, size=count)) for _ in range(SAMPLES))
    low, high = np.quantile([value for value in drawn if value is not None] or [np.nan], [0.025, 0.975])
    return float(low), float(high)


def p_value_of_loss(own: np.ndarray, other: np.ndarray) -> float:
    """The p-value of the one-sided paired test that `other` is better than `own`, utilities float64 (N,).

    Where each is 0 or 1, McNemar's exact test: P(X >= b) for X binomial with n = b + c and 1/2, where the other alone
    is right on b examples and the own one alone on c (McNemar, Psychometrika 12, 1947, with the exact distribution).
    Else the sign-flip permutation test of the mean difference, with FLIPS seeded flips. 1 where they never differ.
    """
    from scipy.stats import binomtest

    differences = other - own
    differences = differences[differences != 0]
    if not len(differences):
        return 1.0
    if (np.abs(differences) == 1).all():
        better = int((differences > 0).sum())
        return float(binomtest(better, len(differences), alternative="greater").pvalue)
    rng, observed = np.random.default_rng(0), differences.sum()
    flipped = (rng.choice((-1.0, 1.0), size=len(differences)) @ differences for _ in range(FLIPS))
    least = observed - 1e-12 * np.abs(differences).sum()  # sums in another order are no other sums
    return (1 + sum(total >= least for total in flipped)) / (1 + FLIPS)


def paired_means(own: np.ndarray, other: np.ndarray) -> Row:
    """The difference of the mean utilities of `own` and `other` on the same examples, both float64 (N,).

    Returns:
        `gain`; its 95 % bootstrap interval `gain_low`, `gain_high`; and `p_value`, two-sided, of `p_value_of_loss`.
    """
    differences = own - other
    low, high = bootstrap(len(differences), lambda examples: float(differences[examples].mean()))
    one_sided = min(p_value_of_loss(own, other), p_value_of_loss(other, own))
    return {
        "gain": float(differences.mean()),
        "gain_low": low,
        "gain_high": high,
        "p_value": min(1.0, 2 * one_sided),
    }
