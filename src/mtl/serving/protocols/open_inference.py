"""The Open Inference Protocol (KServe v2) in JSON, with Triton's extensions for binary tensors and classification.

https://github.com/kserve/open-inference-protocol
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_binary_data.html
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_classification.html
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import orjson

from mtl.serving.loading import Loaded
from mtl.serving.pixels import check_shape, from_nested, from_numbers, parse_json
from mtl.serving.refusals import Refused, encoded_image, wrong_shape

INPUT = "images"
HEADER = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Request:
    """A parsed request.

    Attributes:
        images: uint8 (N, H, W, C).
        id: the client's name for the request; None: it has none.
        binary: whether the client asks for a binary tensor.
        best: number of classes to name for each image, instead of all outputs; 0: all outputs.
    """

    images: np.ndarray
    id: str | None
    binary: bool
    best: int


def server() -> dict[str, Any]:
    """Make the answer to `GET /v2`."""
    name = "multi-task-learning"
    return {"name": name, "version": version(name), "extensions": ["binary_tensor_data", "classification"]}


def metadata(model: Loaded) -> dict[str, Any]:
    """Make the answer to `GET /v2/models/<task>`."""
    return {
        "name": model.task.name,
        "versions": [model.version],
        "platform": "keras",
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, *model.shape]}],
        "outputs": [{"name": model.kind.OUTPUT, "datatype": "FP32", "shape": [-1, len(model.task.names)]}],
    }


def index_entry(model: Loaded) -> dict[str, str]:
    """Make a model's entry in the index of Triton's repository."""
    return {"name": model.task.name, "version": model.version, "state": "READY", "reason": ""}


def parse(body: bytes, header_length: str | None, model: Loaded) -> Request:
    """Read a request; `header_length` is the value of HEADER, if a tensor follows the JSON. Raises Refused."""
    length = len(body)
    if header_length is not None:
        length = int(header_length) if header_length.isascii() and header_length.isdigit() else -1
        if not 0 < length <= len(body):
            raise Refused(f"{HEADER} is {header_length!r:.40}, the body has {len(body)} bytes")
    content = parse_json(body[:length])
    tensor, rest = _only_input(content), body[length:]
    if tensor.get("datatype") == "BYTES":
        raise encoded_image("datatype BYTES")
    if tensor.get("datatype") != "UINT8":
        raise Refused(f"datatype {tensor.get('datatype')!r:.40}; the model takes UINT8, whole numbers from 0 to 255")
    sizes = tensor.get("shape")
    if not isinstance(sizes, list) or not all(type(size) is int and size >= 0 for size in sizes):
        raise Refused("shape must be a list of sizes")
    check_shape(sizes, model.shape)
    binary_size = _parameters(tensor).get("binary_data_size")
    if binary_size is not None:
        images = _from_bytes(rest, binary_size, sizes)
    elif rest:
        raise Refused(f"{len(rest)} bytes follow the JSON, but the input has no binary_data_size")
    else:
        images = _from_json(tensor.get("data"), sizes)
    if not isinstance(content.get("id", ""), str):
        raise Refused("id must be text")
    return Request(images, content.get("id"), *_requested_output(content, model))


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
        raise wrong_shape(
            f"binary_data_size {size!r:.40}; shape {shape} has {needed} bytes, {len(rest)} follow the JSON"
        )
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
        raise wrong_shape(f"data has {images.size} numbers; shape {shape} has {needed}")
    return images.reshape(shape)


def _requested_output(content: dict[str, Any], model: Loaded) -> tuple[bool, int]:
    """Read `binary` and `best` of a Request."""
    only = model.kind.OUTPUT
    default = _parameters(content).get("binary_data_output", False) is True
    outputs = content.get("outputs", [])
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise Refused("outputs must be a list of objects")
    if len(outputs) > 1:
        raise Refused(f"outputs has {len(outputs)} entries; there is one output, {only!r}")
    output = outputs[0] if outputs else {"name": only}
    if output.get("name") != only:
        raise Refused(f"there is no output {output.get('name')!r:.80}; there is {only!r}")
    parameters = _parameters(output)
    if unknown := set(parameters) - {"binary_data", "classification"}:
        raise Refused(f"parameter {min(unknown)!r:.80} of the output; there are binary_data and classification")
    best = parameters.get("classification", 0)
    if type(best) is not int or best < 0:
        raise Refused(f"classification must be a number of classes, not {best!r:.40}")
    if best and model.task.kind != "classes":
        raise Refused(f"classification is for tasks of the kind classes; {model.task.name} is {model.task.kind}")
    return parameters.get("binary_data", default) is True, best


def answer(model: Loaded, request: Request, outputs: np.ndarray) -> tuple[bytes, dict[str, str]]:
    """Make the body and the headers of a response."""
    values = _classified(model, request.best, outputs) if request.best else outputs.astype("<f4")
    tensor: dict[str, Any] = {"name": model.kind.OUTPUT, "datatype": "BYTES" if request.best else "FP32"}
    tensor["shape"] = list(values.shape)
    content: dict[str, Any] = {"model_name": model.task.name, "model_version": model.version, "outputs": [tensor]}
    if request.id is not None:
        content["id"] = request.id
    if not request.binary:
        tensor["data"] = values.ravel().tolist() if request.best else values.ravel()
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), {"Content-Type": "application/json"}
    tail = b"".join(map(_prefixed, values.ravel())) if request.best else values.tobytes()
    tensor["parameters"] = {"binary_data_size": len(tail)}
    head = orjson.dumps(content)
    return head + tail, {"Content-Type": "application/octet-stream", HEADER: str(len(head))}


def _classified(model: Loaded, best: int, probabilities: np.ndarray) -> np.ndarray:
    """Name the likeliest classes of each image, best first: `<probability>:<index>:<name>`, text (N, up to `best`)."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :best]
    rows = zip(order, probabilities, strict=True)
    names = model.task.names
    return np.array([[f"{row[label]:f}:{label}:{names[label]}" for label in labels] for labels, row in rows], object)


def _prefixed(text: str) -> bytes:
    """Encode text for a binary tensor: its length in bytes, then the text."""
    content = text.encode()
    return len(content).to_bytes(4, "little") + content
