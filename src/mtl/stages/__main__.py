"""A stage in a process of its own where src/ is not at hand: `python -m mtl.stages load_data`."""

import importlib
import sys

from mtl.stages import process

if __name__ == "__main__":
    process.run(importlib.import_module(f"mtl.stages.{sys.argv[1]}").main)
