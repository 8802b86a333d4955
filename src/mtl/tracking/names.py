"""Any text as a name that MLflow accepts for a parameter, metric or tag, and back."""

from __future__ import annotations

import posixpath
import re

_OTHER = re.compile(r"[^\w.\- /]")  # a colon too, which MLflow accepts: here it encloses a character's number


def escaped(name: str) -> str:
    """Replace each character that MLflow refuses by its number: `cats & dogs` becomes `cats :26: dogs`."""
    plain = _OTHER.sub(_number, name)
    # MLflow uses a key as a path too, which must be in its shortest form.
    path = posixpath.normpath(plain)
    return plain if path == plain != "." and not path.startswith(("/", "..")) else re.sub("/|^[.]+", _number, plain)


def unescaped(name: str) -> str:
    """Undo `escaped`."""
    return re.sub(r":([0-9a-f]{2,6}):", lambda match: chr(int(match[1], 16)), name)


def _number(match: re.Match[str]) -> str:
    return "".join(f":{ord(character):02x}:" for character in match[0])
