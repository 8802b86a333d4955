"""Check params.yaml before any stage depends on it: `python src/check_params.py`."""

from mtl import files, lineage
from mtl.config import params


def main() -> None:
    """Stage `check_params`.

    It writes the names of each task's groups in label order: DVC compares parameters without regard to the order of
    keys, so that the labels would not follow it. The order of the tasks changes nothing and is left out.

    What tasks left that are no longer in params.yaml is removed, so that `models` is what a clone gets by `dvc pull`.
    """
    settings = params.read()
    files.write_json(params.ORDER, settings.group_order())
    for path in lineage.leftovers("train@"):
        path.unlink()
        print(f"removed, its task is no longer in {params.PATH}: {path}")
