"""What stands before every route: bearer token, size and patience for bodies, counting. Plain ASGI, for speed."""

from __future__ import annotations

import asyncio
import hmac
import time
import zlib

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mtl.serving import answers
from mtl.serving.gateway import Limits
from mtl.serving.metrics import Metrics
from mtl.serving.refusals import Refused

# What tells whether the gateway is up, and pages that hold nothing but how to ask it.
OPEN = ("/", "/docs", "/openapi.json", "/ping", "/health", "/version", "/v2/health/live", "/v2/health/ready")
OPEN_FOLDERS = ("/static/", "/static-offline-docs/")
WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # how zlib is told of the encodings of a body that are read


class Guard:
    """ASGI middleware; what is wrong with a body that is still coming is raised as Refused where it is read."""

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics, token: str | None) -> None:
        self.app, self.limits, self.metrics, self.token = app, limits, metrics, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        headers = Headers(scope=scope)
        encoding = headers.get("content-encoding", "").strip().lower()
        refused = self._refusal(scope, headers, encoding)
        try:
            if refused is None:
                limited = self._limited(receive)
                await self.app(scope, self._unpacked(limited, encoding) if encoding in WINDOWS else limited, counted)
            else:
                await answers.refusal(scope["path"], refused)(scope, receive, counted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, scope["method"], status).inc()
            self.metrics.latency.labels(route).observe(time.perf_counter() - began)

    def _refusal(self, scope: Scope, headers: Headers, encoding: str) -> Refused | None:
        path = scope["path"]
        if self.token is not None and path not in OPEN and not path.startswith(OPEN_FOLDERS):
            scheme, _, given = headers.get("authorization", "").partition(" ")
            right = hmac.compare_digest(given.strip().encode("latin-1"), self.token.encode())  # as it was sent
            if scheme.lower() != "bearer" or not right:
                return Refused("a bearer token is needed: Authorization: Bearer <token>", 401)
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.limits.body:
            return self._too_large()
        if encoding not in ("", "identity", *WINDOWS):
            return Refused(f"content encoding {encoding!r:.80}; send gzip, deflate or none", 415)
        return None

    def _too_large(self) -> Refused:
        return Refused(f"the body has more than {self.limits.body:,} bytes", 413)

    def _unpacked(self, receive: Receive, encoding: str) -> Receive:
        """`receive`, decompressed as far as the body's limit goes."""
        unpacker, size = zlib.decompressobj(WINDOWS[encoding]), 0

        async def unpacked() -> Message:
            nonlocal size
            message = await receive()
            if message["type"] != "http.request":
                return message
            try:
                body = unpacker.decompress(message.get("body", b""), self.limits.body + 1 - size)
            except zlib.error:
                raise Refused(f"the body is not {encoding}, as its Content-Encoding says") from None
            size += len(body)
            if size > self.limits.body:
                raise self._too_large()
            if unpacker.unused_data:
                raise Refused(f"more follows the end of the {encoding} in the body")
            if not message.get("more_body", False) and not unpacker.eof:
                raise Refused(f"the {encoding} in the body is cut off")
            return {**message, "body": body}

        return unpacked

    def _limited(self, receive: Receive) -> Receive:
        """`receive`, within the limits of size and time."""
        got, until = 0, asyncio.get_running_loop().time() + self.limits.seconds
        complete = False

        async def limited() -> Message:
            nonlocal got, complete
            if complete:  # what comes now is the end of the connection, for which there is no hurry
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                raise Refused(f"the body did not arrive within {self.limits.seconds:g} seconds", 408) from None
            if message["type"] == "http.request":
                got += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if got > self.limits.body:
                    raise self._too_large()
            return message

        return limited
