"""Changing params.yaml by program: values at dotted paths, with its comments kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mtl import files
from mtl.config import params

_INDENTED_LIST = re.compile(r"^( *)[^\s#-][^\n]*:[ \t]*(?:#[^\n]*)?\n\1 +- ", re.MULTILINE)


def set_param(path: str, value: object) -> None:
    """Change the value at a dotted path in params.yaml. Its comments stay."""
    set_params({path: value})


def set_params(values: Mapping[str, object]) -> None:
    """Change the values at dotted paths in params.yaml, all or none. Its comments stay."""

    def change(tree: Any) -> None:
        for path, value in values.items():
            put(tree, path, value)

    rewrite(params.PATH, params.PATH, change)


def rewrite(source: Path, to: Path, change: Callable[[Any], None]) -> None:
    """Write the YAML file `source` to `to`, after `change` was applied to its tree. Its comments stay."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 200
    # Without this, `size: null` is written back as `size:`.
    yaml.representer.add_representer(
        type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    text = source.read_text(encoding="utf-8")
    if _INDENTED_LIST.search(text):  # else all lists would be moved to the left
        yaml.indent(mapping=2, sequence=4, offset=2)
    tree = yaml.load(text)
    change(tree)
    with files.replacing(to) as temporary:
        yaml.dump(tree, temporary)


def put(tree: Any, path: str, value: object) -> None:
    """Put `value` at a dotted path of a tree of mappings and lists, and add the sections that are missing.

    Raises KeyError or IndexError where the path leads through what has no such part.
    """
    *sections, last = path.split(".")
    for key in sections:
        tree = tree[int(key)] if isinstance(tree, list) else tree.setdefault(key, {})
    tree[int(last) if isinstance(tree, list) else last] = value


def get(tree: Any, path: str) -> Any:
    """The value at a dotted path of a tree of mappings and lists. Raises LookupError where there is none."""
    for key in path.split("."):
        try:
            tree = tree[int(key)] if isinstance(tree, list) else tree[key]
        except (TypeError, ValueError):
            raise LookupError(path) from None
    return tree


def holds(tree: Any, path: str) -> bool:
    """Return whether there is a value at a dotted path of a tree."""
    try:
        get(tree, path)
    except LookupError:
        return False
    return True
