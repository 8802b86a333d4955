"""Addresses of the servers that `mtl request` asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

from mtl.config import params
from mtl.errors import UserError

JOINT = "joint"  # the model that answers for all tasks: no task has this name


@dataclass(frozen=True)
class Server:
    """A server of one task's model, or of the joint model.

    Attributes:
        task: the task, or JOINT.
        url: address for POST requests.
        token: bearer token; None: no token is sent.
    """

    task: str
    url: str
    token: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """Task and address, without user and password."""
        parts = urlsplit(self.url)
        return f"{self.task} at {urlunsplit(parts._replace(netloc=parts.netloc.rpartition('@')[2]))}"


def parse(addresses: Sequence[str], tasks: Sequence[str], token: str | None = None) -> list[Server]:
    """Turn `<task>=<url>`, `joint=<url>` or a gateway's `<url>` into the servers to ask, in that order.

    Only a gateway gets `token`: an `mlflow models serve` asks for none.
    Raises UserError for a task that is not among `tasks`, and for an invalid address.
    """
    servers = []
    for text in addresses:
        name, equals, url = text.partition("=")
        if not equals or "/" in name:
            servers += [Server(task, _address(text, f"{task}/invocations"), token) for task in tasks]
        elif name in (*tasks, JOINT):
            servers.append(Server(name, _address(url, "invocations")))
        else:
            raise UserError(f"{text}: there is no task {name!r} in {params.PATH}; known: {', '.join((*tasks, JOINT))}")
    return servers


def _address(url: str, path: str) -> str:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not parts.query
    except ValueError:
        valid = False
    if not valid:
        raise UserError(f"{url!r}: not the address of a server; give one like http://127.0.0.1:8001")
    return f"{url.rstrip('/')}/{path}"
