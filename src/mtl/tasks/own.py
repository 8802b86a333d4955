"""Code of a person's own, `module:name`, in the working directory or on PYTHONPATH."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from mtl.errors import UserError


def import_from_here(module: str) -> ModuleType:
    """Import a module, which may be in the working directory too."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    return importlib.import_module(module)


def how_to_import(module: str) -> str:
    """The advice where a module that a model needs was not imported."""
    return f"`mtl serve --import {module}`, or mtl.load(…, imports=[{module!r}])"


def find(name: str, what: str) -> Any:
    """The object `module:name`; raises UserError, which calls it `what`, where there is none."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(import_from_here(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{what} {name!r}: {error}; it must be module:name, importable from here") from error
