"""Saved models: written as the same bytes every time, read without running what is in them."""

from __future__ import annotations

import io
import json
import re
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from mtl import files
from mtl.data import paths
from mtl.errors import UserError, one_line
from mtl.networks import archives
from mtl.tasks import spec
from mtl.tasks.spec import TaskSpec

if TYPE_CHECKING:
    import keras

_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def write(model: keras.Model, path: Path, task: TaskSpec | None = None) -> None:
    """Save a Keras model without the time of saving: the same weights are the same bytes.

    The `task` that it answers goes into the archive's metadata.json, from where `mtl.tasks.spec` reads it.
    """
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "model.keras"
        model.save(saved)
        files.write_bytes(path, _without_times(saved, task))


def _without_times(archive: Path, task: TaskSpec | None) -> bytes:
    """A `.keras` archive with fixed times, no date in its metadata, and no memory addresses in its configuration."""
    content = io.BytesIO()
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(content, "w") as new:
        for name in sorted(old.namelist()):
            member = old.read(name)
            if name == "metadata.json":
                metadata = json.loads(member) | {"date_saved": ""}
                if task is not None:
                    metadata[spec.KEY] = task.document()
                member = json.dumps(metadata, sort_keys=True).encode()
            if name == "config.json":
                member = _numbered(member.decode()).encode()
            new.writestr(zipfile.ZipInfo(name, _ZIP_EPOCH), member)
    return content.getvalue()


def _numbered(config: str) -> str:
    """Keras marks objects that layers share by their `id()`; count them in order of appearance instead."""
    numbers: dict[str, int] = {}
    return re.sub(
        r'"shared_object_id": (\d+)',
        lambda match: f'"shared_object_id": {numbers.setdefault(match[1], len(numbers))}',
        config,
    )


def read(path: Path) -> keras.Model:
    """Load a Keras model in safe mode (no code out of the file). Raises UserError where that fails."""
    if not path.exists():
        raise UserError(f"{path} is missing: run `dvc repro`, or `dvc checkout` if it ran before")
    return _load(path, str(path))


def _load(path: Path, called: str) -> keras.Model:
    """Load a model; where that fails, UserError calls it `called`, says what is there, and which Keras wrote it."""
    import keras

    try:
        archives.inspect(path)
    except (archives.Unfit, OSError) as error:
        advice = "; `dvc checkout` brings back what DVC has" if path.parent == paths.MODELS else ""
        raise UserError(f"{called}: not a Keras model: {one_line(error)}{advice}") from None
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever a configuration leads to
        said = f"{archives.cause(error)} ({archives.versions(path)})"
        raise UserError(f"{called}: not a Keras model that loads in safe mode: {said}") from error


def read_for(task: TaskSpec, shape: tuple[int, ...] | None, path: Path) -> keras.Model:
    """Load the model of `task`, on images of `shape` (H, W, C; None: of any).

    Raises UserError where the file is missing or broken, or its answers or images are not those of the task.
    """
    model = read(path)
    fault = task.differs(spec.read_from_model(path))
    if not fault and model.output_shape != (None, len(task.names)):
        fault = f"gives {model.output_shape} for the {len(task.names)} labels of {task.name}"
    if not fault and shape is not None and model.input_shape[1:] != shape:
        fault = f"takes images {model.input_shape[1:]}, these are {shape}"
    if fault:
        raise UserError(f"{path} {fault}: another task's model, or an older one; `dvc repro` trains it anew")
    return model


def check(model: keras.Model) -> None:
    """Save and load `model` before hours are spent on training it. Raises UserError where it could not be kept."""
    with tempfile.TemporaryDirectory() as folder:
        write(model, Path(folder) / "model.keras")
        _load(Path(folder) / "model.keras", f"the network {model.name!r}, saved")
