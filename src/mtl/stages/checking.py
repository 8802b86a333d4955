"""Checks of params.yaml before anything runs, also against the data set that was loaded."""

from __future__ import annotations

from pathlib import Path

from mtl import lineage
from mtl.config import params
from mtl.data import paths, store
from mtl.errors import UserError

STAGE = Path("src/check_params.py")  # where this is, the parameters are those of this project


def check_here(allow_missing: bool) -> None:
    """Check the parameters where the working directory is the root of the project; elsewhere, as in study/, nothing.

    Raises UserError with one line, also where the images are not here though their outputs are.
    """
    if not (STAGE.exists() and params.PATH.exists() and lineage.root() == Path.cwd()):
        return
    data = check().data
    for path in (Path(data.path), Path(data.shifted)):
        is_tracked = path.with_name(f"{path.name}.dvc").exists()
        if not allow_missing and paths.RAW.exists() and not path.exists() and is_tracked:
            raise UserError(
                f"{path} is not here: `dvc pull {path}` or `mtl run` gets the images, and --allow-missing goes on"
                f" without them, from {paths.RAW} as it is"
            )


def check() -> params.Params:
    """Read params.yaml; compare it with the data set in data/raw, where `load_data` would read the same images again.

    Raises UserError with one line that names the key.
    """
    settings = params.read()
    try:
        _compare(settings)
    except UserError:
        if lineage.loaded_from(settings.data.model_dump(exclude={"validation"}, exclude_unset=True)):
            raise
    return settings


def _compare(settings: params.Params) -> None:
    """Raise UserError where a task or the number of validation images does not fit the data set in data/raw."""
    if not store.is_loaded():
        return
    from mtl.sources import split
    from mtl.sources.loaded import CLASS
    from mtl.tasks import heads, kinds

    dataset, tables = store.read_dataset(), store.read_tables()
    for name, task in settings.tasks.items():
        spec, _ = kinds.find(task.kind).derive(name, task, tables)
        heads.of_task(settings, spec)
    if dataset.source not in ("table", "tfrecord"):
        classes = store.read_columns()[CLASS].to_pylist()[: dataset.train + dataset.validation]
        split.hold_out(classes, settings.data.validation, settings.seed)
