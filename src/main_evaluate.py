"""Judge the models of all tasks together, on the test images: `python src/main_evaluate.py`."""

from mtl import errors
from mtl.stages import main_evaluate

if __name__ == "__main__":
    errors.run(main_evaluate.main)
