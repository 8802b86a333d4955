"""Load the images into data/raw: `python src/load_data.py`."""

from mtl.stages import load_data, process

if __name__ == "__main__":
    process.run(load_data.main)
