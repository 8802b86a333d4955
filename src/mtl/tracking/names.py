"""Names that MLflow takes as the key of a parameter, metric or tag, made of any text and back."""

from __future__ import annotations

import posixpath
import re

_OTHER = re.compile(r"[^\w.\- /]")  # a colon too, which MLflow takes: here it begins and ends a character's number


def escaped(name: str) -> str:
    """`name` with each character that MLflow refuses as its number: `cats & dogs` becomes `cats :26: dogs`."""
    plain = _OTHER.sub(_number, name)
    # A key is also a path there, which has to be in its shortest form.
    path = posixpath.normpath(plain)
    return plain if path == plain != "." and not path.startswith(("/", "..")) else re.sub("/|^[.]+", _number, plain)


def unescaped(name: str) -> str:
    """What `escaped` was given."""
    return re.sub(r":([0-9a-f]{2,6}):", lambda found: chr(int(found[1], 16)), name)


def _number(found: re.Match[str]) -> str:
    return "".join(f":{ord(character):02x}:" for character in found[0])
