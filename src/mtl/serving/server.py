"""The server's life: load, listen, reload on SIGHUP or when the alias moves, drain on SIGTERM."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from mtl.errors import UserError
from mtl.serving import application, loading, registry
from mtl.serving.connections import Doorman
from mtl.serving.feedback import Feedback
from mtl.serving.gateway import Gateway, Limits
from mtl.serving.loading import Loaded
from mtl.serving.metrics import Metrics

ALIAS_SECONDS = 5.0  # between two looks at where an alias points
DRAIN_SECONDS = 30  # for requests that are being answered when SIGTERM comes

log = logging.getLogger("uvicorn.error")


def loader(source: str) -> tuple[Callable[[], Mapping[str, Loaded]], Callable[[], str | None]]:
    """How to load `source`, and how to ask which version its alias points at (None: it has no alias)."""
    if source.startswith("models:/"):
        return lambda: registry.load(source), lambda: registry.current_version(source)
    loads, served = 0, frozenset[str]()

    def load() -> Mapping[str, Loaded]:
        nonlocal loads, served
        loads += 1
        loaded = loading.from_folder(Path(source), str(loads), served)
        served = frozenset(loaded)
        return loaded

    return load, lambda: None


async def serve(source: str, host: str, port: int, feedback: Path, limits: Limits, token: str | None) -> None:
    """Listen, load the models, answer until SIGTERM or SIGINT, and drain.

    Raises UserError: nothing to listen on, or no models that can be served.
    """
    load, alias = loader(source)
    gateway = Gateway(load, limits, Metrics(), settle)
    app = application.build(gateway, Feedback(feedback), token)
    listener = _listen(host, port)
    server = uvicorn.Server(configure(app, gateway))

    # uvicorn raises the signal again when it has drained, which would end the process as if it had been killed.
    def end(*_: object) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[object]] = set()  # the loop itself would let go of them while they run

    def keep(task: asyncio.Task[object]) -> None:
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    wanted = asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, wanted.set)
    listening = loop.create_task(server.serve(sockets=[listener]))
    try:
        await gateway.start()
        log.info("serving %s on http://%s:%d", ", ".join(gateway.tasks), host, listener.getsockname()[1])
        keep(loop.create_task(reload_when(wanted, gateway)))
        keep(loop.create_task(_watch(gateway, alias)))
        await listening
    finally:
        server.should_exit = True
        await listening
        for task in list(tasks):
            task.cancel()


def configure(app: FastAPI, gateway: Gateway, **options: Any) -> uvicorn.Config:
    """How uvicorn is to serve `app`: within the gateway's limits, answering what was asked before it ends."""
    return uvicorn.Config(
        app,
        http=Doorman(gateway.limits, gateway.metrics),  # type: ignore[arg-type]  # it is called as a class would be
        timeout_keep_alive=gateway.limits.idle,  # type: ignore[arg-type]  # seconds need not be whole
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        **options,
    )


async def reload_when(wanted: asyncio.Event, gateway: Gateway) -> None:
    """Reload whenever `wanted` is set; however often that is during a reload, one more follows it."""
    while True:
        await wanted.wait()
        wanted.clear()
        await gateway.reload()


def settle() -> None:
    """Collect what old models left, and spare the collector the new ones.

    Lists of numbers set it off often, and each of its full passes over TensorFlow's objects would hold all requests for
    a fifth of a second. And glibc keeps what is freed between blocks in use, a hundred megabytes of weights and more,
    until it is asked to give it back.
    """
    forget_gradients()
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc's alone
        trim(0)


def forget_gradients() -> None:
    """Let go of the graphs that TensorFlow keeps for gradients which a server never asks for.

    An operation with a gradient of its own, such as `tf.nn.silu`, enters it in a table of the whole process each time
    it is traced, and with it its graph and all weights. The table has no public way to take something out.
    """
    from tensorflow.python.framework import ops

    for name in [name for name in ops.gradient_registry.list() if name.startswith("CustomGradient-")]:
        ops.gradient_registry._registry.pop(name, None)


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens; raises UserError where the address cannot be had."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]
        raise UserError(f"cannot listen on {host}:{port}: {reason}; choose another --host or --port") from None


async def _watch(gateway: Gateway, alias: Callable[[], str | None]) -> None:
    """Reload when the alias points at another version; one that cannot be loaded is tried once."""
    tried = None
    while True:
        with suppress(UserError):  # a registry that is away for a while is no reason to stop answering
            now = await asyncio.to_thread(alias)
            if now is None:
                return
            if now not in (gateway.version, tried):
                tried = now
                await gateway.reload()
        await asyncio.sleep(ALIAS_SECONDS)
