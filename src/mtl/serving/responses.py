"""HTTP responses: JSON with NumPy arrays in it, and errors in the form of the request's protocol."""

from __future__ import annotations

import logging
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from mtl.serving.protocols import mlflow, tensorflow
from mtl.serving.refusals import Refused

log = logging.getLogger("uvicorn.error")


def json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Make a JSON response; NumPy arrays become lists."""
    return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), status, headers, "application/json")


def refusal(path: str, refused: Refused) -> Response:
    """Make the error response that the protocol behind `path` has."""
    body = mlflow.error if path.endswith("/invocations") else tensorflow.error
    headers = {} if refused.retry_after is None else {"Retry-After": str(refused.retry_after)}
    if refused.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return json(body(refused), refused.status, headers)


def handle_errors(app: FastAPI) -> None:
    """Turn every error of `app` into one line for the client; tracebacks go to the server's log only."""

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return refusal(request.url.path, error)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        path = request.url.path
        response = refusal(path, Refused(f"{request.method} {path}: {error.detail}", error.status_code))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return refusal(request.url.path, Refused(f"{place}: {first['msg']}", 422))

    @app.exception_handler(ClientDisconnect)
    async def disconnected(request: Request, error: ClientDisconnect) -> Response:
        return refusal(request.url.path, Refused("the connection was closed before the body was complete"))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        response = refusal(request.url.path, Refused("internal error; the server's log says more", 500))
        response.headers["Connection"] = "close"  # uvicorn closes it now, so a client must not send on it again
        return response
