"""Check params.yaml: `python src/check_params.py`."""

from mtl.stages import check_params, process

if __name__ == "__main__":
    process.run(check_params.main)
