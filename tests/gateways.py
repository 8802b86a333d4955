"""Gateways for the tests: the real application under uvicorn in this process, or `mtl serve` in one of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import requests
import uvicorn
from conftest import CIFAR10, ROOT, regrouped, task_spec

from mtl import files
from mtl.data import paths
from mtl.data.store import Dataset
from mtl.serving import application
from mtl.serving.feedback import Feedback
from mtl.serving.gateway import Gateway, Limits
from mtl.serving.loading import Loaded
from mtl.serving.metrics import Metrics
from mtl.serving.server import configure

SHAPE = (4, 4, 3)
VEHICLES = ("airplane", "automobile", "ship", "truck")
OF_CLASS = {name: "vehicle" if name in VEHICLES else "animal" for name in CIFAR10}
TASKS = {
    "model1": task_spec("model1", CIFAR10),
    "model2": task_spec("model2", OF_CLASS, ("animal", "vehicle")).model_copy(update={"frequencies": (0.6, 0.4)}),
}
RELATED = regrouped(*TASKS.values())
# What the models below say: red pixels are a cat, others a ship; green pixels are an animal, others a vehicle.
RED, GREEN, YELLOW, BLACK = (255, 0, 0), (0, 255, 0), (255, 255, 0), (0, 0, 0)


def picture(*colours: tuple[int, int, int], shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Plain images, uint8 (N, *shape)."""
    return np.stack([np.broadcast_to(np.array(colour, np.uint8), shape) for colour in colours])


def by_colour(channel: int, yes: int, no: int, classes: int) -> Callable[[np.ndarray], np.ndarray]:
    """Probabilities float32 (N, classes): label `yes` as likely as the channel is bright, `no` gets the rest."""

    def compute(images: np.ndarray) -> np.ndarray:
        bright = images[..., channel].mean(axis=(1, 2), dtype=np.float32) / 255
        probabilities = np.zeros((len(images), classes), np.float32)
        probabilities[:, yes], probabilities[:, no] = bright, 1 - bright
        return probabilities

    return compute


COMPUTE = {"model1": by_colour(0, 3, 8, 10), "model2": by_colour(1, 0, 1, 2)}


def loaded(version: str = "1", compute: dict | None = None) -> dict[str, Loaded]:
    """Both models, of NumPy alone."""
    functions = COMPUTE | (compute or {})
    return {name: Loaded(task, SHAPE, version, functions[name], RELATED) for name, task in TASKS.items()}


class Client(requests.Session):
    """A session whose URLs are paths of one gateway."""

    def __init__(self, base: str) -> None:
        super().__init__()
        self.base = base

    def request(self, method, url, *args, **kwargs):
        return super().request(method, self.base + url, *args, **{"timeout": 30, **kwargs})


@contextmanager
def logged() -> Iterator[list[str]]:
    """Collect the lines that the gateway in this process logs, warnings and errors."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())
    log = logging.getLogger("uvicorn.error")
    level = log.level
    log.setLevel(logging.WARNING)
    log.addHandler(handler)
    try:
        yield lines
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


@contextmanager
def serving(
    load: Callable[[], dict[str, Loaded]] = loaded,
    limits: Limits = Limits(),  # noqa: B008
    token: str | None = None,
    feedback: Path | str | Feedback = ":memory:",
    start: bool = True,
) -> Iterator[tuple[Client, Gateway, asyncio.AbstractEventLoop]]:
    """The application under uvicorn in a thread: a client of it, the gateway, and its event loop."""
    listener = socket.create_server(("127.0.0.1", 0))
    loop, parts, up = asyncio.new_event_loop(), [], threading.Event()

    async def main() -> None:
        gateway = Gateway(load, limits, Metrics())
        memory = feedback if isinstance(feedback, Feedback) else Feedback(feedback)
        app = application.build(gateway, memory, token)
        server = uvicorn.Server(configure(app, gateway, log_level="critical"))
        parts.extend([gateway, server])
        if start:
            await gateway.start()
        up.set()
        await server.serve(sockets=[listener])

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    try:
        assert up.wait(60)
        with Client(f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
            yield client, parts[0], loop
    finally:
        parts[1].should_exit = True
        thread.join()
        loop.close()


def write_project(folder: Path, seed: int = 0) -> Path:
    """A folder with labels, test images and two small trained-looking models, as the DAG leaves them."""
    import keras

    from mtl.networks import catalog, inference, saving

    keras.utils.set_random_seed(seed)
    shape = (8, 8, 3)
    images = np.random.default_rng(seed).integers(0, 256, (20, *shape)).astype(np.uint8)
    files.write_array(folder / paths.IMAGES / "x_test.npy", images)
    dataset = Dataset("n", "folder", {}, "png", 20, 0, 20, shape, {"class": "text"})
    files.write_json(folder / paths.DATASET, asdict(dataset))
    files.write_json(folder / paths.RELATIONS, RELATED.model_dump(mode="json"))
    for name, task in TASKS.items():
        files.write_json(folder / paths.LABELS / name / paths.TASK, task.model_dump())
        network = inference.plain(catalog.compact(shape, len(task.names), [4]))
        saving.write(network, folder / paths.model_path(name), task)
    return folder


class Process:
    """`mtl serve` in a process of its own, on a free port."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.log = folder / "serve.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", "from mtl.cli import main; main()", "serve", "--port", "0", *arguments],
                cwd=folder,
                env=os.environ | {"PYTHONPATH": str(ROOT / "src")} | environment,
                stdout=log,
                stderr=log,
            )
        port = self.wait_for("serving ").rpartition(":")[2]
        self.client = Client(f"http://127.0.0.1:{port}")

    def wait_for(self, text: str, times: int = 1) -> str:
        """Wait until `times` lines of the log contain `text`; returns the last of them."""
        waiting = threading.Event()
        for _ in range(6000):
            lines = [line for line in self.log.read_text().splitlines() if text in line]
            if len(lines) >= times:
                return lines[times - 1]
            assert self.process.poll() is None, self.log.read_text()
            waiting.wait(0.05)
        raise AssertionError(f"{text!r} is not in the log:\n{self.log.read_text()}")

    def hang_up(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(60)
