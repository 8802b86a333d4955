"""Export of a task's model: written beside its target, checked against the Keras model, then moved into place."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from mtl.config import params
from mtl.data import paths, store
from mtl.errors import UserError, one_line
from mtl.serving.export import formats
from mtl.tasks import kinds, spec

Kind = Literal["saved_model", "onnx"]

KINDS: tuple[Kind, ...] = get_args(Kind)
EXPORTS = Path("exports")
TOLERANCE = 1e-4  # largest difference of an exported model's outputs from the Keras model's, of values relative to them
CHECKED = 100  # test images on which they are compared


@dataclass(frozen=True)
class Export:
    """A written export.

    Attributes:
        path: the file or folder.
        images: number of test images that it was checked on.
        difference: largest difference of its outputs from those of the Keras model in the same precision.
        precision: the Keras model's own precision.
        precision_difference: the same difference from the Keras model in its own precision.
    """

    path: Path
    images: int
    difference: float
    precision: str
    precision_difference: float


def export(task: str, kind: Kind, output: Path | None = None, force: bool = False) -> Export:
    """Export the model of `task`, by default to EXPORTS; `force` replaces an earlier export.

    Raises UserError if the model cannot be converted, if the export answers differently, or if `output` is taken. What
    was at `output` stays then.
    """
    recipe = params.read().recipe(task)
    if output is None:
        output = EXPORTS / task / "1" if kind == "saved_model" else EXPORTS / f"{task}.onnx"
    if kind == "onnx":
        formats.require_onnx()
    with replacing(output, force) as path:
        from mtl.data import backend

        backend.import_tensorflow()
        from mtl.networks import catalog, inference, saving

        catalog.find(recipe.network)  # the user's own module may register its layers
        images = np.asarray(store.read_images("test")[:CHECKED])
        model = saving.read_for(store.read_task(task), images.shape[1:], paths.model_path(task))
        answered = spec.read_from_model(paths.model_path(task))
        name = kinds.find(answered.kind).OUTPUT
        original, precision = inference.predict(model, images), inference.precision(model)
        try:
            if kind == "onnx":
                model = formats.in_float32(model)
                formats.write_onnx(model, answered, path)
                exported = formats.load_onnx(path, name)(images)
            else:
                formats.write_saved_model(model, answered, path)
                exported = formats.load_saved_model(path, name)(images)
        except UserError:
            raise
        except Exception as error:  # converters raise errors of any type on networks that they do not know
            raise UserError(f"{task}: cannot be exported as {kind}: {one_line(error)[:300]}") from error
        expected = inference.predict(model, images)
        difference = float(np.abs(exported - expected).max())
        size = 1.0 if name == "probabilities" else float(np.abs(expected).max())
        if not difference <= TOLERANCE * size:  # also where it is NaN
            raise UserError(
                f"{task}: the {kind} export differs from the model by {difference:.2g}; nothing was written"
            )
    return Export(output, len(images), difference, precision, float(np.abs(exported - original).max()))


@contextmanager
def replacing(target: Path, force: bool) -> Iterator[Path]:
    """Yield a path beside `target` for a new export, and move that to `target` at the end.

    Raises UserError if something is at `target`, and with `force` only if that is not an export.
    """
    if target.exists() or target.is_symlink():
        if not force:
            raise UserError(f"{target} already exists; give another --output, or --force to replace it")
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
