"""Images drawn by code, with the names of CIFAR-10's classes, on which the whole DAG runs without a data set.

A class is a silhouette in any colours, moved, tilted, mirrored and resized, under noise. Measured with seed 0: ridge
regression on the pixels of all 15,000 training images (scikit-learn's RidgeClassifier, alpha 1e5) has a test accuracy
of 0.138, and 0.597 for animal or vehicle. `compact` as params.yaml has it, trained on 10,000 of them, has 0.994. These
figures say nothing about photographs.
"""

from __future__ import annotations

import numpy as np

from mtl.config.params import PATH, Data
from mtl.errors import UserError
from mtl.sources.loaded import Loaded, class_column
from mtl.tasks.columns import Split

TRAIN, TEST, SIDE, MAX_SIDE = 15_000, 2_000, 32, 256
NOISE, CONTRAST, COAT, UNTYPICAL = 110, (60, 110), 45, 0.2

# Ellipses (o) and boxes (#) in a square from -1 to 1, y downwards: centre x, y, half width, half height.
# Animals are all ellipses and most have a rough coat; vehicles have boxes and most a smooth shine.
SHAPES = {
    "airplane": "# 0 0 .95 .16, # .1 0 .2 .85, # -.8 0 .12 .4",
    "automobile": "# 0 .1 .95 .25, # 0 -.3 .5 .25, o -.5 .4 .24 .24, o .5 .4 .24 .24",
    "bird": "o 0 .1 .7 .3, o .65 -.25 .25 .25, o -.15 -.3 .2 .5",
    "cat": "o 0 .1 .65 .55, o -.42 -.5 .2 .4, o .42 -.5 .2 .4",
    "deer": "o 0 .2 .6 .25, o -.4 .6 .12 .4, o .4 .6 .12 .4, o .6 -.2 .14 .5, o .6 -.75 .35 .12",
    "dog": "o 0 .1 .6 .55, o -.65 .2 .2 .55, o .65 .2 .2 .55",
    "frog": "o 0 .3 .9 .4, o -.4 -.15 .25 .3, o .4 -.15 .25 .3",
    "horse": "o 0 .1 .7 .35, o -.45 .6 .13 .4, o .45 .6 .13 .4, o .7 -.35 .2 .5",
    "ship": "# 0 .35 .95 .25, # .1 -.05 .35 .25, # .1 -.6 .1 .4",
    "truck": "# -.25 -.15 .65 .5, # .65 .1 .3 .3, o -.5 .5 .2 .2, o .5 .5 .2 .2",
}


def load(data: Data, seed: int) -> Loaded:
    """Draw 15,000 training and 2,000 test images, as many of each class: uint8 (N, size, size, 3).

    The same seed gives the same bytes on every machine. Raises UserError where `data.size` is above 256.
    """
    size = data.size or SIDE
    if size > MAX_SIDE:
        raise UserError(f"{PATH}: data.size: {size}; generated images are drawn at up to {MAX_SIDE} pixels")
    counts: dict[Split, int] = {"train": TRAIN, "test": TEST}
    images = {
        split: _draw_all(count, size, np.random.default_rng([seed, stream]))
        for stream, (split, count) in enumerate(counts.items())
    }
    columns = {split: class_column(_labels(count), tuple(SHAPES)) for split, count in counts.items()}
    return Loaded("generated images", "drawn", images, columns)


def _labels(count: int) -> np.ndarray:
    """The classes of `count` images in turn, int (N,)."""
    return np.arange(count) % len(SHAPES)


def _draw_all(count: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `count` images, the classes in turn, uint8 (N, size, size, 3)."""
    labels = _labels(count)
    images = np.empty((count, size, size, 3), np.uint8)
    for label, shape in enumerate(SHAPES.values()):
        indices = np.flatnonzero(labels == label)
        # In portions, which need little memory.
        for portion in np.array_split(indices, 1 + len(indices) * size * size // 1_000_000):
            images[portion] = _draw(shape, len(portion), size, rng)
    return images


def _draw(shape: str, count: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `count` images of one shape by +, -, * and / only, which all processors round alike (not so the sine)."""

    def some(low: float, high: float, *shape: int) -> np.ndarray:
        return low + (high - low) * rng.random((count, *(shape or (1, 1, 1))))

    def sign(*shape: int) -> np.ndarray:
        return np.where(some(0, 1, *shape) < 0.5, -1, 1)

    axis = (2 * np.arange(size) + 1 - size) / size
    x, y = axis[:, None] - some(-0.2, 0.2), axis[:, None, None] - some(-0.2, 0.2)
    tilt, radius = some(-0.2, 0.2), some(0.55, 0.85)
    cosine, sine = (1 - tilt * tilt) / (1 + tilt * tilt), 2 * tilt / (1 + tilt * tilt)
    u, v = sign() * (cosine * x + sine * y) / radius, (cosine * y - sine * x) / radius
    inside = np.zeros((count, size, size, 1), bool)
    for part in shape.split(", "):
        middle_x, middle_y, width, height = map(float, part.split()[1:])
        a, b = abs(u - middle_x) / width, abs(v - middle_y) / height
        inside |= (a * a + b * b if part[0] == "o" else np.maximum(a, b)) < 1
    rough = ("#" not in shape) ^ (some(0, 1) < UNTYPICAL)
    coat = np.where(rough, some(-COAT, COAT, size, size, 1), COAT * v)
    image = some(40, 215, 1, 1, 3) + some(-30, 30) * x + some(-30, 30) * y
    image += inside * (coat + sign(1, 1, 3) * some(*CONTRAST))
    image += some(-NOISE, NOISE, size, size, 3)
    return np.clip(image, 0, 255).astype(np.uint8)
