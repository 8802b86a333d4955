"""Limits of connections: how many may be open, and how long one may be silent. uvicorn itself has no such timeouts."""

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

LOG_PAUSE = 60.0  # seconds between two lines of the log about too many connections
RESERVED_FILES = 128  # open files for models, feedback and libraries

log = logging.getLogger("uvicorn.error")


def raise_file_limit(connections: int) -> int:
    """Ask the system for as many open files as `connections` need; return the number of connections that it allows.

    Without this, connections could use up all files, and the system's library would then close new ones silently.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return connections
    needed = connections + RESERVED_FILES
    if soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    allowed = max(1, min(connections, soft - RESERVED_FILES))
    if allowed < connections:
        log.warning("%d open files are allowed: at most %d connections", soft, allowed)
    return allowed


class ConnectionFactory:
    """Makes uvicorn's protocol object for each connection; counts and logs refused ones."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self.limits, self._metrics = limits, metrics
        self._next_log = 0.0

    def __call__(self, **arguments: Any) -> Connection:
        """Return a protocol for one connection, as uvicorn expects of a protocol class."""
        return Connection(self, **arguments)

    def refuse(self, now: float) -> bytes:
        """Return the HTTP response for a connection too many; `now` in seconds of the loop's clock."""
        self._metrics.dropped.labels("limit").inc()
        text = f"{self.limits.connections} connections are open already"
        if now >= self._next_log:
            self._next_log = now + LOG_PAUSE
            log.warning("%s; new ones are answered with 503", text)
        body = orjson.dumps(tensorflow.error(busy(f"{text}; try again in a second")))
        head = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
        return f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    def count_silent(self) -> None:
        """Count a connection that was silent for too long."""
        self._metrics.dropped.labels("silence").inc()


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with a timeout for the headers of each request, the first and those that follow."""

    def __init__(self, factory: ConnectionFactory, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._factory, self._unsent = factory, 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Wait for headers, or refuse a connection too many."""
        if len(self.connections) >= self._factory.limits.connections:
            self.transport = transport
            transport.write(self._factory.refuse(self.loop.time()))
            transport.close()
            return
        super().connection_made(transport)
        self._start_timer(self._factory.limits.header_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        """Stop the timer: the body has a limit of its own."""
        self._stop_timer()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the end of a body that nobody reads."""
        last = not self.pipeline
        super().on_response_complete()
        if last:
            self._wait_for_request()

    def pause_writing(self) -> None:
        """Wait for a client that does not read its answer."""
        super().pause_writing()
        self._unsent = 0
        self._start_timer(self._factory.limits.header_seconds)

    def resume_writing(self) -> None:
        """Go on with the answer, or wait for the next request."""
        super().resume_writing()
        self._stop_timer()
        if self.cycle is not None and self.cycle.response_complete:
            self._wait_for_request()

    def _wait_for_request(self) -> None:
        self._start_timer(self.timeout_keep_alive + self._factory.limits.header_seconds)

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self._time_out)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_out(self) -> None:
        """Abort the connection, but wait again for a client that has read a part of its answer meanwhile."""
        unsent, self._timer = self.transport.get_write_buffer_size(), None
        if unsent and unsent != self._unsent:
            self._unsent = unsent
            self._start_timer(self._factory.limits.header_seconds)
        else:
            self._factory.count_silent()
            self.transport.abort()
