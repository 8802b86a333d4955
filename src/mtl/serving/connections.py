"""How many connections may be open, and how long one may be silent; uvicorn itself waits for ever."""

from __future__ import annotations

import asyncio
import logging
import resource
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mtl.serving.gateway import Limits
from mtl.serving.metrics import Metrics
from mtl.serving.protocols import tensorflow
from mtl.serving.refusals import busy

QUIET = 60.0  # seconds between two lines of the log about too many connections
RESERVED = 128  # open files that are for models, feedback and libraries

log = logging.getLogger("uvicorn.error")


def allowed(wanted: int) -> int:
    """How many of `wanted` connections the system lets this process have, after asking it for as many files as needed.

    Where connections use up all files, the system's library closes new ones without a word.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    needed = wanted + RESERVED
    if soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft < needed:
        log.warning("%d open files are allowed: at most %d connections", soft, max(1, soft - RESERVED))
    return max(1, min(wanted, soft - RESERVED))


class Doorman:
    """Makes uvicorn's protocol for each connection; knows how many there are, and whether the log has said it."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self.limits, self._metrics = limits, metrics
        self._quiet_until = 0.0

    def __call__(self, **arguments: Any) -> Connection:
        """A protocol for one connection, as uvicorn asks its class for it."""
        return Connection(self, **arguments)

    def refuse(self, now: float) -> bytes:
        """What a connection too many is told; `now` in seconds of the loop's clock."""
        self._metrics.dropped.labels("limit").inc()
        text = f"{self.limits.connections} connections are open already"
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET
            log.warning("%s; new ones are answered with 503", text)
        body = orjson.dumps(tensorflow.error(busy(f"{text}; try again in a second")))
        head = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
        return f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    def give_up(self) -> None:
        """Count a connection that was silent for too long."""
        self._metrics.dropped.labels("silence").inc()


class Connection(HttpToolsProtocol):
    """uvicorn's protocol, with a time for the headers of each request, the first and those that follow."""

    def __init__(self, doorman: Doorman, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._doorman, self._unsent = doorman, 0
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Wait for headers, or refuse a connection too many."""
        if len(self.connections) >= self._doorman.limits.connections:
            self.transport = transport
            transport.write(self._doorman.refuse(self.loop.time()))
            transport.close()
            return
        super().connection_made(transport)
        self._wait(self._doorman.limits.headers)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the time limit with the connection."""
        self._cancel()
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        """The headers came in time; the body has a limit of its own."""
        self._cancel()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request; also what is left of a body that nobody reads is to come to an end."""
        waits = not self.pipeline
        super().on_response_complete()
        if waits:
            self._wait(self.timeout_keep_alive + self._doorman.limits.headers)

    def pause_writing(self) -> None:
        """Wait for a client that does not take its answer."""
        super().pause_writing()
        self._unsent = 0
        self._wait(self._doorman.limits.headers)

    def resume_writing(self) -> None:
        """Go on with the answer, or wait for the next request."""
        super().resume_writing()
        self._cancel()
        if self.cycle is not None and self.cycle.response_complete:
            self._wait(self.timeout_keep_alive + self._doorman.limits.headers)

    def _wait(self, seconds: float) -> None:
        self._cancel()
        self._late = self.loop.call_later(seconds, self._end)

    def _cancel(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _end(self) -> None:
        """Let go of the connection, but of one that still takes its answer only when it no longer does."""
        unsent, self._late = self.transport.get_write_buffer_size(), None
        if unsent and unsent != self._unsent:
            self._unsent = unsent
            self._wait(self._doorman.limits.headers)
        else:
            self._doorman.give_up()
            self.transport.abort()
