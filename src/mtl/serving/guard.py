"""Middleware before every route: bearer token, limits of bodies, request metrics. Plain ASGI, for speed."""

from __future__ import annotations

import asyncio
import hmac
import time
import zlib

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mtl.serving import responses
from mtl.serving.gateway import Limits
from mtl.serving.metrics import Metrics
from mtl.serving.refusals import Refused

# Paths without a token: health, and pages that contain only how to use the gateway.
OPEN_PATHS = ("/", "/docs", "/openapi.json", "/ping", "/health", "/version", "/v2/health/live", "/v2/health/ready")
OPEN_FOLDERS = ("/static/", "/static-offline-docs/")
ENCODINGS = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # encodings of bodies -> zlib's `wbits`


class Guard:
    """ASGI middleware. Errors in a body that is still arriving are raised as Refused where a route reads it."""

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics, token: str | None) -> None:
        self.app, self.limits, self.metrics, self.token = app, limits, metrics, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        headers = Headers(scope=scope)
        encoding = headers.get("content-encoding", "").strip().lower()
        refused = self._refusal(scope, headers, encoding)
        try:
            if refused is None:
                receive = self._limited(receive)
                if encoding in ENCODINGS:
                    receive = self._decompressed(receive, encoding)
                await self.app(scope, receive, send_noting_status)
            else:
                await responses.refusal(scope["path"], refused)(scope, receive, send_noting_status)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, scope["method"], status).inc()
            self.metrics.latency.labels(route).observe(time.perf_counter() - started)

    def _refusal(self, scope: Scope, headers: Headers, encoding: str) -> Refused | None:
        path = scope["path"]
        if self.token is not None and path not in OPEN_PATHS and not path.startswith(OPEN_FOLDERS):
            scheme, _, token = headers.get("authorization", "").partition(" ")
            # Starlette decodes headers as latin-1; this gives back the bytes.
            equal = hmac.compare_digest(token.strip().encode("latin-1"), self.token.encode())
            if scheme.lower() != "bearer" or not equal:
                return Refused("a bearer token is needed: Authorization: Bearer <token>", 401)
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.limits.body:
            return self._too_large()
        if encoding not in ("", "identity", *ENCODINGS):
            return Refused(f"content encoding {encoding!r:.80}; send gzip, deflate or none", 415)
        return None

    def _too_large(self) -> Refused:
        return Refused(f"the body has more than {self.limits.body:,} bytes", 413)

    def _decompressed(self, receive: Receive, encoding: str) -> Receive:
        """Wrap `receive` to decompress a body, up to the limit of its size."""
        decompressor, size = zlib.decompressobj(ENCODINGS[encoding]), 0

        async def receive_decompressed() -> Message:
            nonlocal size
            message = await receive()
            if message["type"] != "http.request":
                return message
            try:
                body = decompressor.decompress(message.get("body", b""), self.limits.body + 1 - size)
            except zlib.error:
                raise Refused(f"the body is not {encoding}, as its Content-Encoding says") from None
            size += len(body)
            if size > self.limits.body:
                raise self._too_large()
            if decompressor.unused_data:
                raise Refused(f"more follows the end of the {encoding} in the body")
            if not message.get("more_body", False) and not decompressor.eof:
                raise Refused(f"the {encoding} in the body is cut off")
            return {**message, "body": body}

        return receive_decompressed

    def _limited(self, receive: Receive) -> Receive:
        """Wrap `receive` to limit size and time of a body."""
        size, complete = 0, False
        deadline = asyncio.get_running_loop().time() + self.limits.body_seconds

        async def receive_limited() -> Message:
            nonlocal size, complete
            if complete:  # the next message is the end of the connection, which may take any time
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise Refused(f"the body did not arrive within {self.limits.body_seconds:g} seconds", 408) from None
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if size > self.limits.body:
                    raise self._too_large()
            return message

        return receive_limited
