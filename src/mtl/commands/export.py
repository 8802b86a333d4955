"""`mtl export`."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from mtl.config import params
from mtl.data import paths, store
from mtl.errors import UserError, one_line
from mtl.serving.export import formats, placing


@click.command
@click.argument("task")
@click.option("--format", "kind", type=click.Choice(["saved_model", "onnx"]), default="saved_model", show_default=True)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="Folder of the SavedModel, or the ONNX file. Default: exports/TASK/1, or exports/TASK.onnx.",
)
@click.option("--force", is_flag=True, help="Replace an earlier export.")
def command(task: str, kind: str, output: Path | None, force: bool) -> None:
    """Export the model of TASK for serving without Keras; `exports/TASK` is what TensorFlow Serving loads.

    A SavedModel computes in the precision of the model. It has the signatures serving_default (`images`: uint8 batch)
    and serving_bytes (`image_bytes`: PNG or JPEG files). ONNX takes `images` and computes in float32. Both answer
    `probabilities`, which are compared with those of the Keras model before the export is kept.
    """
    recipe = params.read().recipe(task)
    output = output or (placing.EXPORTS / task / "1" if kind == "saved_model" else placing.EXPORTS / f"{task}.onnx")
    if kind == "onnx":
        formats.require_onnx()
    with placing.placing(output, force) as new:
        from mtl.data import backend

        backend.import_tensorflow()
        from mtl.networks import catalog, inference, saving

        catalog.find(recipe.network)  # a person's own module may register its layers
        classes, images = store.read_classes(task)["classes"], np.asarray(store.read_images("test")[: placing.CHECKED])
        model = saving.read_for(classes, images.shape[1:], paths.model_path(task))
        expected = inference.predict(model, images)
        try:
            if kind == "onnx":
                model = formats.in_float32(model)
                formats.write_onnx(model, classes, new)
                got = formats.load_onnx(new)(images)
            else:
                formats.write_saved_model(model, classes, new)
                got = formats.load_saved_model(new)(images)
        except UserError:
            raise
        except Exception as error:  # what converters raise on a stranger's network is not limited to a few types
            raise UserError(f"{task}: cannot be exported as {kind}: {one_line(error)[:300]}") from error
        difference = float(np.abs(got - inference.predict(model, images)).max())
        if not difference <= placing.TOLERANCE:
            raise UserError(f"{task}: as {kind} it answers otherwise, by up to {difference:.2g}; nothing was written")
    click.echo(f"{output}: within {difference:.1e} of the Keras model on {len(images)} test images")
    if kind == "onnx" and recipe.precision != "float32":
        own = float(np.abs(got - expected).max())
        click.echo(f"It computes in float32: within {own:.1e} of the Keras model in its own {recipe.precision}")
