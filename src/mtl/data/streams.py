"""A training fed from TFRecord shards: read, shuffled, decoded and augmented beside it, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mtl.data.feeds import Arrays, Batch, Feed, Plan, augment, passes, sides
from mtl.data.shards import CHUNK, ENDED, ShardedImages

SHUFFLED = 64 << 20  # bytes of encoded images among which the next one is drawn
LEAST = 64  # images in that buffer, however large they are
INTERLEAVED = 8  # shards that are read at a time


def feed(images: np.ndarray | ShardedImages, labels: np.ndarray) -> Feed:
    """The feed of a training with `images`: an array, or shards, which are read into memory where they may be."""
    if isinstance(images, ShardedImages) and not images.fits:
        return Streamed(images, labels)
    return Arrays(np.asarray(images), labels)


class Streamed(Feed[ShardedImages]):
    """Images in TFRecord shards, never all in memory.

    A pass reads the shards in a new order, several at a time, and draws each image from a buffer of SHUFFLED bytes:
    less thorough than an array's shuffle, so `mtl convert` has mixed the images over the shards already.
    """

    def batches(self, plan: Plan) -> Iterator[Batch]:
        recipe, seed, worker, workers = plan.recipe, plan.seed, plan.worker, plan.workers
        size, pad = recipe.batch_size, recipe.augmentation.translate
        side = sides(len(self), seed)
        reading = -1
        for parts in passes(len(self), recipe, plan.first_epoch):
            shares = []
            start = 0  # of the part, in the batch
            for number, part in parts:
                before = number * len(self) if recipe.steps_per_epoch else 0  # places of a batch go on over passes
                if number != reading:
                    reading = number
                    chunks = _Chunks(self._pass(seed, number, part.start, before, size, worker, workers))
                length = part.stop - part.start
                mine = len(range(start, start + length)[(worker - start) % workers :: workers])
                places, images = chunks.take(mine, self.shape)
                if len(places) < mine:
                    raise self.images.broken(ENDED)
                shares.append((places, images, (side[places] + number) % 2))
                start += length
            places, images, mirrored = (np.concatenate(column) for column in zip(*shares, strict=True))
            # Drawn for the whole batch, so that they do not depend on who shares it.
            first, part = parts[0]
            rng = np.random.default_rng([seed, first, part.start])
            rows, columns = rng.integers(2 * pad + 1, size=(2, start))[:, worker::workers]
            yield augment(images, rows, columns, mirrored, recipe.augmentation), self.labels[places]

    def _pass(
        self, seed: int, number: int, skipped: int, before: int, size: int, worker: int, workers: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(places among the images, images) of a pass over them, from number `skipped` on, of one worker's share.

        An image is of the worker on whom its place in the batch falls; the others' are not decoded.
        """
        rng = np.random.default_rng([seed, number])
        images = self.images
        records = images.records(rng.permutation(len(images.files)).tolist(), INTERLEAVED)
        buffer = min(len(self), max(LEAST, int(SHUFFLED / images.mean_bytes)))
        records = records.shuffle(buffer, seed=int(rng.integers(2**31)), reshuffle_each_iteration=False)
        records = records.skip(skipped)
        if workers > 1:
            records = records.enumerate(before + skipped)
            records = records.filter(lambda place, _: (place % size) % workers == worker)
            records = records.map(lambda _, record: record)
        yield from images.decoded(records, CHUNK, lambda ids, pixels: (np.searchsorted(images.index, ids), pixels))

    def whole(self, batch_size: int) -> Iterator[Batch]:
        start = 0
        for images in self.images.batches(batch_size):
            yield images, self.labels[start : start + len(images)]
            start += len(images)

    def content(self) -> Iterator[bytes | memoryview]:
        yield repr((self.images.sha256, self.images.size, SHUFFLED, INTERLEAVED)).encode()
        for array in (self.images.index, self.labels):
            yield np.ascontiguousarray(array).data


class _Chunks:
    """Images with their places in chunks of any size, taken in any number."""

    def __init__(self, chunks: Iterator[tuple[np.ndarray, np.ndarray]]) -> None:
        self.chunks, self.places = chunks, np.empty(0, int)
        self.images: np.ndarray | None = None

    def take(self, count: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """The next `count` images, or those that are left, with their places."""
        if self.images is None:
            self.images = np.empty((0, *shape), np.uint8)
        places, images, available = [self.places], [self.images], len(self.places)
        while available < count and (chunk := next(self.chunks, None)) is not None:
            places.append(chunk[0])
            images.append(chunk[1])
            available += len(chunk[0])
        all_places, all_images = np.concatenate(places), np.concatenate(images)
        self.places, self.images = all_places[count:], all_images[count:]
        return all_places[:count], all_images[:count]
