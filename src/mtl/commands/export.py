"""`mtl export`."""

from __future__ import annotations

from pathlib import Path

import click

from mtl.serving.export import exporter


@click.command
@click.argument("task")
@click.option("--format", "kind", type=click.Choice(exporter.KINDS), default="saved_model", show_default=True)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="Folder of the SavedModel, or the ONNX file. Default: exports/TASK/1, or exports/TASK.onnx.",
)
@click.option("--force", is_flag=True, help="Replace an earlier export.")
def command(task: str, kind: exporter.Kind, output: Path | None, force: bool) -> None:
    """Export the model of TASK for serving without Keras; `exports/TASK` is what TensorFlow Serving loads.

    A SavedModel computes in the precision of the model. It has the signatures serving_default (`images`: uint8 batch)
    and serving_bytes (`image_bytes`: PNG or JPEG files). ONNX takes `images` and computes in float32. Both return
    `probabilities`, of a value `values`, which are compared with those of the Keras model before the export is kept.
    """
    export = exporter.export(task, kind, output, force)
    click.echo(f"{export.path}: within {export.difference:.1e} of the Keras model on {export.images} test images")
    if kind == "onnx" and export.precision != "float32":
        own = f"within {export.precision_difference:.1e} of the Keras model in its own {export.precision}"
        click.echo(f"It computes in float32: {own}")
