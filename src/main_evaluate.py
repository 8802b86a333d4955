"""Judge the models of all tasks together, on the test images: `python src/main_evaluate.py`."""

from mtl.stages import main_evaluate, process

if __name__ == "__main__":
    process.run(main_evaluate.main)
