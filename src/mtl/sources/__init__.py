"""Sources of images and labels: CIFAR-10, folders and archives, TFRecord shards, and images drawn by code.

Only the stage `load_data` calls `load`, and writes its result to data/raw.
"""

from importlib import import_module

from mtl.config.params import Data
from mtl.sources.loaded import Loaded


def load(data: Data, seed: int) -> Loaded:
    """Load all images of `data.source`. Raises UserError where they are missing, broken or unusable."""
    return import_module(f"mtl.sources.{data.source}").load(data, seed)
