"""Derive the labels of every task into data/labels: `python src/derive_labels.py`."""

from mtl.stages import derive_labels, process

if __name__ == "__main__":
    process.run(derive_labels.main)
