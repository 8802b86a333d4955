"""Where images come from: `load` asks the source that params.yaml names.

A source is a module with `load(data, seed) -> Images`. It reads its copy, checks it and decodes it; it writes nothing.
"""

from __future__ import annotations

from importlib import import_module

from mtl.params import Data
from mtl.sources.images import Images


def load(data: Data, seed: int) -> Images:
    """Load all images of `data.source`. Raises UserError where the copy is missing, broken or unfit."""
    return import_module(f"mtl.sources.{data.source}").load(data, seed)
