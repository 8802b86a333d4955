"""SavedModel and ONNX: a writer and a loader for each."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl import files
from mtl.errors import UserError
from mtl.tasks import kinds
from mtl.tasks.spec import TaskSpec

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

EXTRA = "assets.extra"  # SavedModel's folder for files that TensorFlow itself does not read

Predict = Callable[[np.ndarray], np.ndarray]


def _meaning(task: TaskSpec) -> tuple[str, Any]:
    """What says in an export what its outputs mean: `classes`, their names, or of other kinds `task`, all of it."""
    return ("classes", list(task.names)) if task.kind == "classes" else ("task", task.document())


def write_saved_model(model: keras.Model, task: TaskSpec, folder: Path) -> None:
    """Write a SavedModel with signatures for arrays and for encoded images, and beside it what its outputs mean."""
    import keras
    import tensorflow as tf

    shape, output = model.input_shape[1:], kinds.find(task.kind).OUTPUT

    def answer(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {output: model([images], training=False)}

    def answer_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images = tf.map_fn(lambda content: decode(content, shape[:2]), image_bytes, fn_output_signature=tf.uint8)
        return answer(tf.ensure_shape(images, (None, *shape)))

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serving_default", answer, [tf.TensorSpec((None, *shape), tf.uint8, "images")])
    archive.add_endpoint("serving_bytes", answer_bytes, [tf.TensorSpec((None,), tf.string, "image_bytes")])
    archive.write_out(folder, verbose=False)
    name, content = _meaning(task)
    files.write_json(folder / EXTRA / f"{name}.json", content)


def decode(content: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """Decode a PNG or JPEG, string (), to uint8 (H, W, 3) of `size`, as a part of the graph.

    The result is that of `mtl.sources.decoding`, but a pixel of a resized image may differ by 1, since Pillow rounds
    after each of the two directions. The EXIF orientation is ignored.
    """
    import tensorflow as tf

    # decode_jpeg decodes PNG too; decode_image cannot be told to use the exact transform that Pillow uses.
    image = tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")
    resized = tf.image.resize(image, size, method="bilinear", antialias=True)
    return tf.saturate_cast(tf.round(resized), tf.uint8)


def load_saved_model(folder: Path, output: str) -> Predict:
    """Load the function behind `serving_default`: uint8 (N, H, W, C) -> float32 (N, K)."""
    import tensorflow as tf

    loaded = tf.saved_model.load(folder)
    return lambda images: loaded.signatures["serving_default"](images=tf.constant(images))[output].numpy()


def require_onnx() -> None:
    """Raise UserError unless the packages of requirements-onnx.txt are installed."""
    missing = [name for name in ("onnx", "onnxruntime", "tf2onnx") if find_spec(name) is None]
    if missing:
        advice = "`pip install -c constraints.txt -r requirements-onnx.txt`"
        raise UserError(f"ONNX needs {', '.join(missing)}: install with {advice}")


def in_float32(model: keras.Model) -> keras.Model:
    """Copy a model, with its weights, so that it computes in float32."""
    import keras

    def float32(layer: keras.Layer) -> keras.Layer:
        is_layer = isinstance(layer, keras.Layer)  # else it is one of keras.ops, which has the type of its input
        return type(layer).from_config(layer.get_config() | ({"dtype": "float32"} if is_layer else {}))

    copy = keras.models.clone_model(model, clone_function=float32, recursive=True)
    copy.set_weights(model.get_weights())
    return copy


def write_onnx(model: keras.Model, task: TaskSpec, path: Path) -> None:
    """Write ONNX with what its outputs mean as JSON in its metadata."""
    import onnx
    import tensorflow as tf
    import tf2onnx

    output = kinds.find(task.kind).OUTPUT

    @tf.function
    def answer(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {output: model([images], training=False)}

    spec = tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8, "images")
    proto, _ = tf2onnx.convert.from_function(answer, [spec])
    for tensor in (*proto.graph.input, *proto.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_param = "batch"
    name, content = _meaning(task)
    onnx.helper.set_model_props(proto, {name: json.dumps(content)})
    onnx.save(proto, path)


def load_onnx(path: Path, output: str) -> Predict:
    """Load the function of an ONNX file: uint8 (N, H, W, C) -> float32 (N, K)."""
    import onnxruntime

    loaded = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: loaded.run([output], {"images": images})[0]
