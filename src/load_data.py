"""Load the images into data/raw: `python src/load_data.py`."""

from mtl import errors
from mtl.stages import load_data

if __name__ == "__main__":
    errors.run(load_data.main)
