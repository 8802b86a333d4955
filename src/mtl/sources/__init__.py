"""Where images and their labels come from: CIFAR-10, folders and archives, TFRecord shards, images drawn by code.

The stage `load_data` alone calls `load`; what is read here ends in data/raw.
"""

from importlib import import_module

from mtl.config.params import Data
from mtl.sources.images import Images


def load(data: Data, seed: int) -> Images:
    """Load all images of `data.source`. Raises UserError where the copy is missing, broken or unfit."""
    return import_module(f"mtl.sources.{data.source}").load(data, seed)
