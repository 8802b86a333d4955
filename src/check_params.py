"""Check params.yaml: `python src/check_params.py`."""

from mtl import errors
from mtl.stages import check_params

if __name__ == "__main__":
    errors.run(check_params.main)
