"""TensorFlow Serving's REST protocol.

https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mtl.serving.loading import Loaded
from mtl.serving.pixels import Shape, from_nested, parse_json
from mtl.serving.refusals import Refused, encoded_image

INPUT, SIGNATURE = "images", "serving_default"


def images(body: bytes, shape: Shape) -> tuple[np.ndarray, bool]:
    """Read the images of a request, uint8 (N, H, W, C), and whether it is in row format. Raises Refused."""
    content = parse_json(body)
    signature = content.get("signature_name", SIGNATURE)
    if signature not in ("", SIGNATURE):
        raise Refused(f"there is no signature {str(signature)!r:.80}; there is {SIGNATURE}")
    if ("instances" in content) == ("inputs" in content):
        raise Refused("the body must have either instances (row format) or inputs (columnar format)")
    if "instances" in content:
        rows = content["instances"]
        if isinstance(rows, list) and any(isinstance(row, dict) for row in rows):
            rows = [_by_name(row) for row in rows]
        return from_nested(rows, shape), True
    columns = content["inputs"]
    return from_nested(_by_name(columns) if isinstance(columns, dict) else columns, shape), False


def _by_name(values: Any) -> Any:
    if isinstance(values, dict) and "b64" in values:
        raise encoded_image("b64")
    if not isinstance(values, dict) or set(values) != {INPUT}:
        raise Refused(f"the model has one input, {INPUT!r}")
    return values[INPUT]


def answer(outputs: np.ndarray, by_row: bool) -> dict[str, Any]:
    """Make the body of a response, in the format of its request."""
    return {"predictions" if by_row else "outputs": outputs}


def status(model: Loaded) -> dict[str, Any]:
    """Make the answer to `GET /v1/models/<task>`."""
    ok = {"error_code": "OK", "error_message": ""}
    return {"model_version_status": [{"version": model.version, "state": "AVAILABLE", "status": ok}]}


def metadata(model: Loaded) -> dict[str, Any]:
    """Make the answer to `GET /v1/models/<task>/metadata`."""

    def tensor(name: str, kind: str, *sizes: int) -> dict[str, Any]:
        dimensions = [{"size": str(size), "name": ""} for size in (-1, *sizes)]
        return {name: {"dtype": kind, "tensor_shape": {"dim": dimensions, "unknown_rank": False}, "name": f"{name}:0"}}

    signature = {
        "inputs": tensor(INPUT, "DT_UINT8", *model.shape),
        "outputs": tensor(model.kind.OUTPUT, "DT_FLOAT", len(model.task.names)),
        "method_name": "tensorflow/serving/predict",
    }
    return {
        "model_spec": {"name": model.task.name, "signature_name": "", "version": model.version},
        "metadata": {"signature_def": {"signature_def": {SIGNATURE: signature}}},
    }


def error(refused: Refused) -> dict[str, str]:
    """Make the body of an error; the Open Inference Protocol has the same form."""
    return {"error": str(refused)}
