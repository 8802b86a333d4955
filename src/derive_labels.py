"""Derive the labels of every task into data/labels: `python src/derive_labels.py`."""

from mtl import errors
from mtl.stages import derive_labels

if __name__ == "__main__":
    errors.run(derive_labels.main)
