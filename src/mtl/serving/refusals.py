"""What a client is told when its request cannot be served."""

from __future__ import annotations

from http import HTTPStatus

from mtl.errors import UserError

WAY = "send pixels as lists of whole numbers from 0 to 255, or the PNG or JPEG file itself to POST /predict"


class Refused(UserError):
    """A request that is not served: HTTP status, one line for the client, and MLflow's name for the kind of error.

    Attributes:
        status: 4xx where the client can mend it, 503 where it may try again after `retry_after` seconds.
        code: MLflow's `error_code`; None: the one that goes with the status.
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


def of_shape(message: str) -> Refused:
    """The refusal of well-formed numbers that do not fit the model, which MLflow tells from malformed ones."""
    return Refused(message, code="INVALID_PARAMETER_VALUE")


def encoded(what: str) -> Refused:
    """The refusal of an image that is neither numbers nor a file, such as text in base64; names what is read."""
    return Refused(f"{what} is not read here: {WAY}")


def busy(message: str) -> Refused:
    """The refusal of a request that would be served a moment later."""
    return Refused(message, HTTPStatus.SERVICE_UNAVAILABLE, retry_after=1)
