"""The feed of a training: images and labels in batches, whatever they are read from."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import tensorflow as tf
from numpy.lib.stride_tricks import sliding_window_view

from mtl.config.recipes import Augmentation, Recipe
from mtl.data.shards import ShardedImages
from mtl.errors import UserError
from mtl.tasks.heads import encode, target_columns
from mtl.tasks.targets import Head

Batch = tuple[np.ndarray, np.ndarray]  # images, uint8 (B, H, W, C), and labels, (B,), or (B, ·) side by side


Pixels = TypeVar("Pixels", np.ndarray, ShardedImages)


@dataclass(frozen=True)
class Plan:
    """What a training does with its feed.

    Attributes:
        recipe: how it trains.
        seed: of the order of the images and their augmentation.
        heads: the tasks of its network; empty: one task, of as many labels as the network has outputs.
        first_epoch: epochs before this one are passed over.
        worker: number of this one of `workers` that share each batch: it gets every `workers`-th image of it.
        workers: how many share a batch.
    """

    recipe: Recipe
    seed: int
    heads: tuple[Head, ...] = ()
    first_epoch: int = 0
    worker: int = 0
    workers: int = 1


class Feed(ABC, Generic[Pixels]):
    """Images, uint8 (N, H, W, C), with their labels, as `heads.encode` takes them, yielded in batches.

    `shape` is that of an image: height, width, channels.
    """

    def __init__(self, images: Pixels, labels: np.ndarray) -> None:
        self.images: Pixels = images
        self.labels = labels
        self.shape: tuple[int, int, int] = images.shape[1:]
        self.failure: UserError | None = None  # why the images could not be read

    def __len__(self) -> int:
        return len(self.images)

    @abstractmethod
    def batches(self, plan: Plan) -> Iterator[Batch]:
        """Yield shuffled, augmented batches of this worker: a pure function of seed, epoch and step.

        Without `steps_per_epoch` an epoch is every image once, and its last batch may be smaller. With it, the images
        come again and again, shuffled anew each time, and an epoch is so many whole batches of that.
        """

    @abstractmethod
    def whole(self, batch_size: int) -> Iterator[Batch]:
        """Yield every image once, in order and as it is."""

    @abstractmethod
    def content(self) -> Iterator[bytes | memoryview]:
        """Yield what distinguishes this feed's images and labels from others, for a digest."""

    def steps(self, recipe: Recipe) -> int:
        """Steps of an epoch."""
        return recipe.steps_per_epoch or math.ceil(len(self) / recipe.batch_size)

    def stream(self, plan: Plan) -> tf.data.Dataset:
        """`batches` with the targets of the heads, float32 (B, ·), instead of labels. Two are prepared ahead."""
        return self._dataset(lambda: self.batches(plan), plan.heads)

    def in_order(self, heads: Sequence[Head], batch_size: int = 500) -> tf.data.Dataset:
        """`whole` with targets, as in `stream`."""
        batches = self._dataset(lambda: self.whole(batch_size), heads)
        # Keras warns of a stream that ends without having stated its length.
        return batches.apply(tf.data.experimental.assert_cardinality(math.ceil(len(self) / batch_size)))

    def _dataset(self, generate: Callable[[], Iterator[Batch]], heads: Sequence[Head]) -> tf.data.Dataset:
        targets = target_columns(heads)[-1].stop

        def each() -> Iterator[Batch]:
            try:
                for images, labels in generate():
                    yield images, encode(labels, heads)
            except UserError as error:
                self.failure = error
                raise

        return tf.data.Dataset.from_generator(
            each,
            output_signature=(
                tf.TensorSpec((None, *self.shape), tf.uint8),
                tf.TensorSpec((None, targets), tf.float32),
            ),
        ).prefetch(2)


@contextmanager
def readable(*feeds: Feed) -> Iterator[None]:
    """Raise the UserError of a feed that could not be read; TensorFlow makes an error of its own of it."""
    try:
        yield
    except tf.errors.OpError:
        for feed in feeds:
            if feed.failure:
                raise feed.failure from None
        raise


class Arrays(Feed[np.ndarray]):
    """Images and labels in memory."""

    def batches(self, plan: Plan) -> Iterator[Batch]:
        seed, augmentation = plan.seed, plan.recipe.augmentation
        windows = _windows(self.images, augmentation.translate)
        side = sides(len(self), seed)
        current = -1
        for parts in passes(len(self), plan.recipe, plan.first_epoch):
            places = []
            for number, part in parts:
                if number != current:
                    current, rng = number, np.random.default_rng([seed, number])
                    order = rng.permutation(len(self))
                    shifts = rng.integers(2 * augmentation.translate + 1, size=(2, len(self)))
                mirrored = (side[order[part]] + number) % 2 == 1
                places.append(np.stack([order[part], *shifts[:, order[part]], mirrored]))
            chosen, rows, columns, mirrored = np.concatenate(places, axis=1)[:, plan.worker :: plan.workers]
            batch = windows[chosen, rows, columns].transpose(0, 2, 3, 1)
            yield _mirror(batch, mirrored, augmentation), self.labels[chosen]

    def whole(self, batch_size: int) -> Iterator[Batch]:
        for start in range(0, len(self), batch_size):
            part = slice(start, start + batch_size)
            yield self.images[part], self.labels[part]

    def content(self) -> Iterator[bytes | memoryview]:
        for array in (self.images, self.labels):
            yield np.ascontiguousarray(array).data


def passes(count: int, recipe: Recipe, first_epoch: int = 0) -> Iterator[list[tuple[int, slice]]]:
    """Yield for each batch the parts of passes over the images that it is made of: (number of the pass, its part).

    A batch is of one pass, and of several only with `steps_per_epoch`, where passes follow each other without a gap.
    """
    size = recipe.batch_size
    if recipe.steps_per_epoch is None:
        for epoch in range(first_epoch, recipe.epochs):
            for start in range(0, count, size):
                yield [(epoch, slice(start, min(start + size, count)))]
        return
    for step in range(first_epoch * recipe.steps_per_epoch, recipe.epochs * recipe.steps_per_epoch):
        start, end, parts = step * size, (step + 1) * size, []
        while start < end:
            number, offset = divmod(start, count)
            taken = min(count - offset, end - start)
            parts.append((number, slice(offset, offset + taken)))
            start += taken
        yield parts


def sides(count: int, seed: int) -> np.ndarray:
    """1 for each image that is mirrored in the odd passes, 0 for each that is in the even ones.

    In turn rather than at random: two passes show both sides of every image (arXiv:2404.00498).
    """
    return np.random.default_rng(seed).integers(2, size=count)


def augment(
    images: np.ndarray, rows: np.ndarray, columns: np.ndarray, mirrored: np.ndarray, augmentation: Augmentation
) -> np.ndarray:
    """Augmented copies of `images`, uint8 (B, H, W, C), as `Arrays` makes them.

    `rows` and `columns`, from 0 to twice `translate`, say where the frame of each is on the padded image.
    """
    windows = _windows(images, augmentation.translate)
    batch = windows[np.arange(len(images)), rows, columns].transpose(0, 2, 3, 1)
    return _mirror(batch, mirrored, augmentation)


def _mirror(images: np.ndarray, mirrored: np.ndarray, augmentation: Augmentation) -> np.ndarray:
    """`images` with those `mirrored` turned in place, where the recipe has it."""
    if augmentation.flip:
        turned = mirrored.astype(bool)
        images[turned] = images[turned, :, ::-1]
    return images


def _windows(images: np.ndarray, pad: int) -> np.ndarray:
    """All positions of the image's frame on the padded image, (N, rows, columns, C, H, W), as a view."""
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect") if pad else images
    return sliding_window_view(padded, images.shape[1:3], axis=(1, 2))
