"""Micro-batching: requests that wait for a model at the same time are computed together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mtl.serving.refusals import busy

Compute = Callable[[np.ndarray], np.ndarray]
_Waiting = tuple[np.ndarray, "asyncio.Future[np.ndarray]"]


class Batcher:
    """Computes requests of some images each in batches, one batch at a time, in a thread of its own.

    While a batch is computed, requests queue for the next one. A batch starts when there are as many requests as in the
    batch before it, or after `deadline`: clients that were answered together ask again together, and a single client
    never waits.

    Args:
        compute: images uint8 (N, H, W, C) -> outputs float32 (N, K), for N up to `largest`.
        largest: images in a batch.
        deadline: seconds that a batch may wait to grow.
        capacity: images that may wait; a request beyond them is refused with 503.
        observe: called with the outputs of each batch, in the batcher's thread.
    """

    def __init__(
        self,
        compute: Compute,
        largest: int,
        deadline: float,
        capacity: int,
        observe: Callable[[np.ndarray], None] = lambda outputs: None,
    ) -> None:
        self._compute, self._largest, self._deadline = compute, largest, deadline
        self._capacity, self._observe = capacity, observe
        self._queue: deque[_Waiting] = deque()
        self._arrived, self._expected, self._enough = asyncio.Event(), 1, asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batch")
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self.waiting = 0  # images in the queue

    async def __call__(self, images: np.ndarray) -> np.ndarray:
        """Outputs float32 (N, K) of images uint8 (N, H, W, C). Raises Refused (503) if the queue is full."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        if self.waiting + len(images) > self._capacity:
            raise busy(f"{self.waiting} images are waiting already; try again in a second")
        loop = asyncio.get_running_loop()
        parts: list[asyncio.Future[np.ndarray]] = []
        for start in range(0, len(images), self._largest):
            part = images[start : start + self._largest]
            parts.append(loop.create_future())
            self._queue.append((part, parts[-1]))
            self.waiting += len(part)
        self._arrived.set()
        if len(self._queue) >= self._expected or self.waiting >= self._largest:
            self._enough.set()
        answers = await asyncio.gather(*parts) if len(parts) > 1 else [await parts[0]]
        return np.concatenate(answers) if len(answers) > 1 else answers[0]

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            if self._closing and not self._queue:
                return
            if len(self._queue) < self._expected and self.waiting < self._largest:
                self._enough.clear()
                timer = loop.call_later(self._deadline, self._enough.set)
                await self._enough.wait()
                timer.cancel()
            batch = self._next_batch()
            if not self._queue and not self._closing:
                self._arrived.clear()
            self._expected = max(1, len(batch))
            if batch:
                await self._answer(loop, batch)

    def _next_batch(self) -> list[_Waiting]:
        """Remove from the queue the oldest requests that fit into one batch; skip those whose client has gone."""
        batch, size = list[_Waiting](), 0
        while self._queue and size + len(self._queue[0][0]) <= self._largest:
            images, future = self._queue.popleft()
            self.waiting -= len(images)
            if not future.done():
                batch.append((images, future))
                size += len(images)
        return batch

    async def _answer(self, loop: asyncio.AbstractEventLoop, batch: list[_Waiting]) -> None:
        images = batch[0][0] if len(batch) == 1 else np.concatenate([images for images, _ in batch])
        try:
            outputs = await loop.run_in_executor(self._thread, self._compute_and_observe, images)
        except Exception as error:  # a batch that fails must not end the loop
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        start = 0
        for part, future in batch:
            if not future.done():
                future.set_result(outputs[start : start + len(part)])
            start += len(part)

    def _compute_and_observe(self, images: np.ndarray) -> np.ndarray:
        outputs = self._compute(images)
        self._observe(outputs)
        return outputs

    async def close(self) -> None:
        """Answer waiting requests, then stop. No new request may come from now on."""
        self._closing = True
        self._arrived.set()
        self._enough.set()
        if self._task is not None:
            await self._task
        self._thread.shutdown(wait=False)
