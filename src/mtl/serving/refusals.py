"""Errors for clients whose request cannot be served."""

from __future__ import annotations

from http import HTTPStatus

from mtl.errors import UserError

ADVICE = "send pixels as lists of whole numbers from 0 to 255, or the PNG or JPEG file itself to POST /predict"


class Refused(UserError):
    """A request that is not served: HTTP status, one line for the client, and MLflow's name for the kind of error.

    Attributes:
        status: 4xx if the request is wrong, 503 if the client may repeat it after `retry_after` seconds.
        code: MLflow's `error_code`; None: the one that belongs to the status.
        retry_after: seconds; None: repeating does not help.
    """

    def __init__(
        self,
        message: str,
        status: int = HTTPStatus.BAD_REQUEST,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.retry_after = status, code, retry_after


def wrong_shape(message: str) -> Refused:
    """Make the error for well-formed numbers that do not fit the model: MLflow has a code of its own for them."""
    return Refused(message, code="INVALID_PARAMETER_VALUE")


def encoded_image(encoding: str) -> Refused:
    """Make the error for an image in an encoding that is not read, such as base64."""
    return Refused(f"{encoding} is not read here: {ADVICE}")


def busy(message: str) -> Refused:
    """Make the error for a request that can be served a moment later."""
    return Refused(message, HTTPStatus.SERVICE_UNAVAILABLE, retry_after=1)
