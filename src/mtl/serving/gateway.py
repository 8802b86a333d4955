"""The models that are served now, and their replacement without losing a request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mtl.errors import UserError
from mtl.serving.batching import Batcher
from mtl.serving.loading import SIZES, Loaded
from mtl.serving.metrics import Metrics
from mtl.serving.pixels import Shape
from mtl.serving.refusals import Refused, busy, wrong_shape
from mtl.tasks import relations
from mtl.tasks.relations import Relations
from mtl.tasks.spec import TaskSpec

log = logging.getLogger("uvicorn.error")


@dataclass(frozen=True)
class Limits:
    """Limits of what clients may ask for.

    Attributes:
        body: bytes of a request's body.
        batch: images in a request.
        pixels: pixels of an uploaded image, before it is resized.
        queue: images that may wait for one model.
        body_seconds: time for a body to arrive.
        header_seconds: time for a request's headers to arrive, and for a client to read some of its answer.
        idle_seconds: time that a connection may wait for its next request.
        connections: open connections.
        batch_seconds: time that a batch may wait for more images.
    """

    body: int = 8 * 2**20
    batch: int = 256
    pixels: int = 20_000_000
    queue: int = 1024
    body_seconds: float = 10.0
    header_seconds: float = 10.0
    idle_seconds: float = 5.0
    connections: int = 1000
    batch_seconds: float = 0.005


@dataclass(frozen=True)
class Served:
    """A loaded model with its batcher."""

    model: Loaded
    batcher: Batcher


class Gateway:
    """Answers for all tasks, from the models that `load` returned last.

    Args:
        load: loads the models, in a thread. If it fails during a reload, the models before it stay.
        limits: limits for clients.
        metrics: counters.
        clean_up: called after each attempt to load models.
    """

    def __init__(
        self,
        load: Callable[[], Mapping[str, Loaded]],
        limits: Limits,
        metrics: Metrics,
        clean_up: Callable[[], object] = lambda: None,
    ) -> None:
        self.limits, self.metrics = limits, metrics
        self._load, self._clean_up, self._served = load, clean_up, dict[str, Served]()
        self._loading = asyncio.Lock()

    async def start(self) -> None:
        """Load the models for the first time; requests before that get the status 503. Raises UserError."""
        async with self._loading:
            await self._replace()
            self._clean_up()

    async def reload(self) -> bool:
        """Load the models again and send new requests to them; returns whether that worked."""
        async with self._loading:
            try:
                await self._replace()
            except Exception as error:  # a bad file must not end a running server
                log.error("models not reloaded: %s", str(error) if isinstance(error, UserError) else repr(error))
                self.metrics.reloads.labels("failed").inc()
                return False
            finally:
                self._clean_up()
        log.info("models reloaded: %s", ", ".join(self._served))
        self.metrics.reloads.labels("done").inc()
        return True

    async def _replace(self) -> None:
        loaded = await asyncio.to_thread(self._load)
        old = self._served
        self._served = {task: Served(model, self._batcher(model)) for task, model in loaded.items()}
        await asyncio.gather(*(served.batcher.close() for served in old.values()))
        old.clear()

    def _batcher(self, model: Loaded) -> Batcher:
        def queued() -> float:
            served = self._served.get(model.task.name)
            return served.batcher.waiting if served else 0

        observe = self.metrics.observer(model.task, queued)
        return Batcher(model.compute, SIZES[-1], self.limits.batch_seconds, self.limits.queue, observe)

    async def close(self) -> None:
        """Answer waiting requests, and stop."""
        async with self._loading:
            await asyncio.gather(*(served.batcher.close() for served in self._served.values()))

    @property
    def ready(self) -> bool:
        """True once the models are loaded and warm."""
        return bool(self._served)

    @property
    def tasks(self) -> dict[str, TaskSpec]:
        """What the answers of each task mean that is served."""
        return {task: served.model.task for task, served in self._served.items()}

    @property
    def related(self) -> Relations:
        """The relations between the tasks that are served."""
        return self._any().model.related

    @property
    def shape(self) -> Shape:
        """Height, width and channels of the images that every model takes; raises Refused (503) before start."""
        return self._any().model.shape

    @property
    def version(self) -> str:
        """The version of the models, which is one for all; raises Refused (503) before start."""
        return self._any().model.version

    @property
    def models(self) -> list[Loaded]:
        """The models of all tasks; raises Refused (503) before start."""
        self._any()
        return [served.model for served in self._served.values()]

    def model(self, task: str, version: str | None = None) -> Loaded:
        """Get the model of `task`; raises Refused: 404 if there is none, or none of `version`, 503 before start."""
        return self._find(task, version).model

    async def predict(self, task: str, images: np.ndarray, version: str | None = None) -> np.ndarray:
        """Answer a task by its option, float32 (N, K), for images, uint8 (N, H, W, C). Raises Refused."""
        if len(images) > self.limits.batch:
            raise wrong_shape(f"{len(images)} images in one request; at most {self.limits.batch}")
        served = self._find(task, version)
        if images.shape[1:] != served.model.shape:  # they were parsed before a reload
            raise busy("the models have just changed; try again")
        related = served.model.related
        models = {name: self._served[name] for name in relations.needed(related, task)}
        outputs = await asyncio.gather(*(entry.batcher(images) for entry in models.values()))
        return relations.answered(related, dict(zip(models, outputs, strict=True)), served.model.task)

    async def predict_all(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the outputs of every task's own model."""
        served = dict(self._served)
        if images.shape[1:] != self.shape:
            raise busy("the models have just changed; try again")
        outputs = await asyncio.gather(*(entry.batcher(images) for entry in served.values()))
        return dict(zip(served, outputs, strict=True))

    def _find(self, task: str, version: str | None = None) -> Served:
        self._any()
        if task not in self._served:
            known = ", ".join(self._served)
            raise Refused(f"there is no model {task!r}; there are {known}", 404, "RESOURCE_DOES_NOT_EXIST")
        served = self._served[task]
        if version not in (None, served.model.version):
            raise Refused(f"{task} has no version {version!r:.80}; there is {served.model.version}", 404)
        return served

    def _any(self) -> Served:
        if not self._served:
            raise busy("the models are being loaded")
        return next(iter(self._served.values()))
