"""`mtl export`: the model of a task as a SavedModel for TensorFlow Serving, or as ONNX."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mtl.errors import UserError

EXPORTS = Path("exports")
TOLERANCE = 1e-4  # how far an exported model's probabilities may be from those of the Keras model
CHECKED = 100  # test images on which that is looked at


@contextmanager
def placing(target: Path, force: bool) -> Iterator[Path]:
    """Yield a path beside `target` for a new export, which takes the place of `target` at the end.

    Raises UserError where something is there already, and with `force`, where that is no export.
    """
    if target.exists() or target.is_symlink():
        if not force:
            raise UserError(f"{target} is there already; give another --output, or --force to replace it")
        if not (target / "saved_model.pb").is_file() and not (target.is_file() and target.suffix == ".onnx"):
            raise UserError(f"{target} is neither a SavedModel nor an .onnx file, and stays; give another --output")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent) as folder:
        new, old = Path(folder) / "new", Path(folder) / "old"
        yield new
        if target.exists():
            target.rename(old)
        try:
            new.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
