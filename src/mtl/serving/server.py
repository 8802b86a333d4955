"""The server process: listens, loads models, reloads on SIGHUP or when the alias moves, and drains on SIGTERM."""

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
from mtl.serving.connections import ConnectionFactory
from mtl.serving.feedback import Feedback
from mtl.serving.gateway import Gateway, Limits
from mtl.serving.loading import Loaded
from mtl.serving.metrics import Metrics

ALIAS_SECONDS = 5.0  # between two checks of an alias
DRAIN_SECONDS = 30  # for open requests after SIGTERM

log = logging.getLogger("uvicorn.error")


def loader(source: str) -> tuple[Callable[[], Mapping[str, Loaded]], Callable[[], str | None]]:
    """Make a function that loads `source`, and one that looks up its alias's version (None: it has no alias)."""
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

    Raises UserError if the address is taken, or if the models cannot be served.
    """
    load, alias = loader(source)
    gateway = Gateway(load, limits, Metrics(), release_memory)
    app = application.build(gateway, Feedback(feedback), token)
    listener = _listen(host, port)
    server = uvicorn.Server(configure(app, gateway))

    # uvicorn's own handler raises the signal again after draining: the exit status would be that of a killed process.
    def stop(*_: object) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    loop = asyncio.get_running_loop()
    watchers: list[asyncio.Task[None]] = []  # the loop itself holds weak references only
    reload_requested = asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, reload_requested.set)
    listening = loop.create_task(server.serve(sockets=[listener]))
    try:
        await gateway.start()
        log.info("serving %s on http://%s:%d", ", ".join(gateway.tasks), host, listener.getsockname()[1])
        watchers = [
            loop.create_task(reload_when(reload_requested, gateway)),
            loop.create_task(_follow_alias(gateway, alias)),
        ]
        await listening
    finally:
        server.should_exit = True
        await listening
        for watcher in watchers:
            watcher.cancel()


def configure(app: FastAPI, gateway: Gateway, **options: Any) -> uvicorn.Config:
    """Configure uvicorn to serve `app` within the gateway's limits, and to answer open requests before it ends."""
    return uvicorn.Config(
        app,
        http=ConnectionFactory(gateway.limits, gateway.metrics),  # type: ignore[arg-type]  # called like a class
        timeout_keep_alive=gateway.limits.idle_seconds,  # type: ignore[arg-type]  # fractions work too
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        **options,
    )


async def reload_when(requested: asyncio.Event, gateway: Gateway) -> None:
    """Reload whenever `requested` is set; several requests during a reload cause one more reload."""
    while True:
        await requested.wait()
        requested.clear()
        await gateway.reload()


def release_memory() -> None:
    """Free the memory of old models, and exclude the objects of new ones from garbage collection.

    Requests with long lists trigger the collector often, and a full pass over TensorFlow's objects would hold up all
    requests for a fifth of a second. glibc keeps freed blocks, a hundred megabytes of weights and more, until
    `malloc_trim`.
    """
    forget_gradients()
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc only
        trim(0)


def forget_gradients() -> None:
    """Free the graphs that TensorFlow keeps for gradients: a server needs none.

    An operation with a custom gradient, such as `tf.nn.silu`, registers it globally each time it is traced, and the
    gradient holds the graph and all weights. The registry has no public function that removes an entry.
    """
    from tensorflow.python.framework import ops

    for name in [name for name in ops.gradient_registry.list() if name.startswith("CustomGradient-")]:
        ops.gradient_registry._registry.pop(name, None)


def _listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; raises UserError if the address is taken or invalid."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]
        raise UserError(f"cannot listen on {host}:{port}: {reason}; choose another --host or --port") from None


async def _follow_alias(gateway: Gateway, alias: Callable[[], str | None]) -> None:
    """Reload when the alias points at another version; a version that cannot be loaded is tried once."""
    tried = None
    while True:
        with suppress(UserError):  # the server goes on while the registry cannot be reached
            version = await asyncio.to_thread(alias)
            if version is None:
                return
            if version not in (gateway.version, tried):
                tried = version
                await gateway.reload()
        await asyncio.sleep(ALIAS_SECONDS)
