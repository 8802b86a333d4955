"""Passwords and tokens in the address of images, which are refused."""

from __future__ import annotations

import re

# The login before @host in a URI, also in a chain of URIs as fsspec has it: simplecache::https://…
_LOGIN = re.compile(r"(?P<scheme>[A-Za-z0-9+.-]*)://(?P<login>[^/?#]*)@")
_ALWAYS_SECRET = ("http", "https")  # where a token is given as the name of a user
_NO_LOGIN = ("git", "github")  # fsspec has an owner and a repository there


def shown(text: str) -> str:
    """`text` as it may be printed, with *** for the login before @host in a URI."""
    return _LOGIN.sub(lambda match: f"{match['scheme']}://***@", text)


def fault(address: str) -> str | None:
    """The reason to refuse an address, one line; None where nothing in it is secret.

    The address is written to files and to MLflow, which others read. The name of a user alone is no secret: sftp://me@host.
    """
    for match in _LOGIN.finditer(address):
        scheme = match["scheme"].lower()
        if scheme not in _NO_LOGIN and (":" in match["login"] or scheme in _ALWAYS_SECRET):
            return (
                f"{shown(address)!r} has a password or token in it, which would be written to files and logs; give it"
                f" in the environment (FSSPEC_{scheme.upper()}='{{…}}', or what {scheme}:// itself reads) or in"
                " ~/.config/fsspec"
            )
    return None
