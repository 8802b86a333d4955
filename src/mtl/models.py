"""Saved models: written as the same bytes every time, read without running what is in them."""

from __future__ import annotations

import io
import json
import re
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from mtl import store
from mtl.errors import UserError, one_line

if TYPE_CHECKING:
    import keras

_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def write(model: keras.Model, path: Path) -> None:
    """Save a Keras model without the time of saving: the same weights are the same bytes."""
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "model.keras"
        model.save(saved)
        store.write_bytes(path, _without_times(saved))


def _without_times(archive: Path) -> bytes:
    """A `.keras` archive with fixed times, no date in its metadata, and no memory addresses in its configuration."""
    content = io.BytesIO()
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(content, "w") as new:
        for name in sorted(old.namelist()):
            member = old.read(name)
            if name == "metadata.json":
                member = json.dumps({**json.loads(member), "date_saved": ""}, sort_keys=True).encode()
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
    import keras

    if not path.exists():
        raise UserError(f"{path} is missing: run `dvc repro`, or `dvc checkout` if it ran before")
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a Keras model that loads in safe mode: {one_line(error)}") from error


def check(model: keras.Model) -> None:
    """Save and load `model` before hours are spent on training it. Raises UserError where it could not be kept."""
    with tempfile.TemporaryDirectory() as folder:
        write(model, Path(folder) / f"{model.name}.keras")
        read(Path(folder) / f"{model.name}.keras")
