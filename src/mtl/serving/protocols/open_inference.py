"""The Open Inference Protocol (KServe v2), JSON and the binary tensor extension.

https://github.com/kserve/open-inference-protocol , and for the extension Triton's
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_binary_data.html
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import orjson

from mtl.serving.loading import Loaded
from mtl.serving.pixels import Shape, check_shape, from_nested, from_numbers, parse_json
from mtl.serving.refusals import Refused, of_shape

INPUT, OUTPUT = "images", "probabilities"
HEADER = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Request:
    """A parsed request: images uint8 (N, H, W, C), the client's id, and whether the answer is to be binary."""

    images: np.ndarray
    id: str | None
    binary: bool


def server() -> dict[str, Any]:
    """The answer to `GET /v2`."""
    name = "multi-task-learning"
    return {"name": name, "version": version(name), "extensions": ["binary_tensor_data"]}


def metadata(model: Loaded) -> dict[str, Any]:
    """The answer to `GET /v2/models/<task>`."""
    return {
        "name": model.task,
        "versions": [model.version],
        "platform": "keras",
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, *model.shape]}],
        "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [-1, len(model.labels.classes)]}],
    }


def parse(body: bytes, header_length: str | None, shape: Shape) -> Request:
    """Read a request; `header_length` is the value of HEADER, where the tensor follows the JSON. Raises Refused."""
    length = len(body)
    if header_length is not None:
        length = int(header_length) if header_length.isascii() and header_length.isdigit() else -1
        if not 0 < length <= len(body):
            raise Refused(f"{HEADER} is {header_length!r:.40}, the body has {len(body)} bytes")
    content = parse_json(body[:length])
    tensor, rest = _only_input(content), body[length:]
    if tensor.get("datatype") != "UINT8":
        raise Refused(f"datatype {tensor.get('datatype')!r:.40}; the model takes UINT8")
    found = tensor.get("shape")
    if not isinstance(found, list) or not all(type(size) is int and size >= 0 for size in found):
        raise Refused("shape must be a list of sizes")
    check_shape(found, shape)
    size = _parameters(tensor).get("binary_data_size")
    if size is not None:
        images = _from_bytes(rest, size, found)
    elif rest:
        raise Refused(f"{len(rest)} bytes follow the JSON, but the input has no binary_data_size")
    else:
        images = _from_json(tensor.get("data"), found)
    if not isinstance(content.get("id", ""), str):
        raise Refused("id must be text")
    return Request(images, content.get("id"), _wants_binary(content))


def _only_input(content: dict[str, Any]) -> dict[str, Any]:
    tensors = content.get("inputs")
    if not isinstance(tensors, list) or len(tensors) != 1 or not isinstance(tensors[0], dict):
        raise Refused(f"inputs must be a list of one tensor, {INPUT!r}")
    if tensors[0].get("name") != INPUT:
        raise Refused(f"there is no input {tensors[0].get('name')!r:.80}; there is {INPUT!r}")
    return tensors[0]


def _parameters(owner: dict[str, Any]) -> dict[str, Any]:
    parameters = owner.get("parameters", {})
    if not isinstance(parameters, dict):
        raise Refused("parameters must be an object")
    return parameters


def _from_bytes(rest: bytes, size: Any, shape: list[int]) -> np.ndarray:
    needed = int(np.prod(shape, dtype=object))
    if type(size) is not int or size != len(rest) or size != needed:
        raise of_shape(f"binary_data_size {size!r:.40}; shape {shape} has {needed} bytes, {len(rest)} follow the JSON")
    return np.frombuffer(rest, np.uint8).reshape(shape)


def _from_json(data: Any, shape: list[int]) -> np.ndarray:
    if not isinstance(data, list):
        raise Refused("an input needs data, a list of numbers, or the parameter binary_data_size")
    if data and isinstance(data[0], list):
        images = from_nested(data, (shape[1], shape[2], shape[3]))
    else:
        images = from_numbers(data) if data else np.empty(0, np.uint8)
    needed = int(np.prod(shape, dtype=object))
    if images.size != needed:
        raise of_shape(f"data has {images.size} numbers; shape {shape} has {needed}")
    return images.reshape(shape)


def _wants_binary(content: dict[str, Any]) -> bool:
    default = _parameters(content).get("binary_data_output", False) is True
    outputs = content.get("outputs", [])
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise Refused("outputs must be a list of objects")
    unknown = [output.get("name") for output in outputs if output.get("name") != OUTPUT]
    if unknown:
        raise Refused(f"there is no output {unknown[0]!r:.80}; there is {OUTPUT!r}")
    return any([_parameters(output).get("binary_data", default) is True for output in outputs] or [default])


def answer(model: Loaded, request: Request, probabilities: np.ndarray) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of a response."""
    tensor: dict[str, Any] = {"name": OUTPUT, "datatype": "FP32", "shape": list(probabilities.shape)}
    content: dict[str, Any] = {"model_name": model.task, "model_version": model.version, "outputs": [tensor]}
    if request.id is not None:
        content["id"] = request.id
    if not request.binary:
        tensor["data"] = probabilities.ravel()
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), {"Content-Type": "application/json"}
    values = probabilities.astype("<f4").tobytes()
    tensor["parameters"] = {"binary_data_size": len(values)}
    head = orjson.dumps(content)
    return head + values, {"Content-Type": "application/octet-stream", HEADER: str(len(head))}
