"""The OpenAPI document, written by hand: for speed, bodies are parsed without the model classes of FastAPI."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from fastapi import FastAPI

from mtl.serving import joint
from mtl.serving.gateway import Gateway
from mtl.tasks import kinds
from mtl.tasks.spec import TaskSpec

TEXT, NUMBER = {"type": "string"}, {"type": "number"}


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {"type": "object", "properties": required | optional, "required": list(required)}


def _list(items: Any, **limits: int) -> dict[str, Any]:
    return {"type": "array", "items": items, **limits}


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _schema_of(example: Any) -> dict[str, Any]:
    """The schema of JSON such as `example`."""
    if isinstance(example, list):
        return _list(_schema_of(example[0]) if example else {})
    if isinstance(example, dict):
        return {"type": "object", "additionalProperties": _any(_schema_of(value) for value in example.values())}
    return TEXT if isinstance(example, str) else NUMBER


def _any(schemas: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The schema of what is of one of several, each named once."""
    different: list[dict[str, Any]] = []
    for schema in schemas:
        if schema not in different:
            different.append(schema)
    return different[0] if len(different) == 1 else {"anyOf": different}


def schemas(shape: tuple[int, int, int], batch: int, tasks: Mapping[str, TaskSpec]) -> dict[str, Any]:
    """Make the schemas of all bodies, for up to `batch` images of `shape` and the answers to `tasks`."""
    pixel = {"type": "integer", "minimum": 0, "maximum": 255}
    fraction = {"type": "number", "exclusiveMinimum": -1, "exclusiveMaximum": 256}  # cut off by MLflow's protocol

    def images(channel: dict[str, Any]) -> dict[str, Any]:
        for size in reversed(shape):
            channel = _list(channel, minItems=size, maxItems=size)
        return _list(channel, minItems=1, maxItems=batch)

    rows = _list(_list(NUMBER))
    size = shape[0] * shape[1] * shape[2]
    flat = _list(
        _list(_list(fraction, minItems=size, maxItems=size), minItems=1, maxItems=1), minItems=1, maxItems=batch
    )
    sizes = {"type": "array", "prefixItems": [{"const": 1}, *({"const": size} for size in shape)], "minItems": 4}
    sizes |= {"maxItems": 4, "items": {"type": "integer"}}
    tensor = {"name": {"const": "images"}, "datatype": {"const": "UINT8"}, "shape": sizes}
    tensor["data"] = _list(pixel, minItems=size, maxItems=size)
    table = {**_object({"data": flat}), "additionalProperties": False}
    output = _object({"name": TEXT, "datatype": TEXT, "shape": _list({"type": "integer"})}, data=_list(NUMBER))
    fractions, integers = [
        [_object({key: images(kind)}) for key in ("instances", "inputs")] for kind in (fraction, pixel)
    ]
    examples = [
        kinds.find(spec.kind).decode(spec, np.ones((1, len(spec.names)), np.float32))[0] for spec in tasks.values()
    ]
    option: dict[str, Any] = {"answer": {"enum": ["derived", "combined"]}}  # a person's own kind has none
    answer = _any(
        _object({key: _schema_of(value) for key, value in example.items()}, **({} if ":" in spec.kind else option))
        for spec, example in zip(tasks.values(), examples, strict=True)
    )
    label = _any(_schema_of(joint.bare(example)) for example in examples)
    numbers = {"type": "object", "additionalProperties": NUMBER}
    return {
        "Invocations": {"oneOf": [*fractions, _object({"dataframe_split": table})]},
        "Predictions": _object({"predictions": rows}),
        "MlflowError": _object({"error_code": TEXT, "message": TEXT}),
        "PredictRequest": {"oneOf": integers},
        "PredictResponse": {"anyOf": [_object({"predictions": rows}), _object({"outputs": rows})]},
        "InferRequest": _object({"inputs": _list(_object(tensor), minItems=1, maxItems=1)}, id=TEXT),
        "InferResponse": _object({"model_name": TEXT, "model_version": TEXT, "outputs": _list(output)}, id=TEXT),
        "JointAnswer": _object(
            {
                "id": {"type": ["string", "null"]},
                "stored": {"type": "boolean"},
                "answers": {"type": "object", "additionalProperties": answer},
                "contradiction": {"type": ["boolean", "null"]},
                "contradictions": _list(TEXT),
            }
        ),
        "Truth": {
            "oneOf": [
                _object({"id": TEXT, "labels": {"type": "object", "additionalProperties": label, "minProperties": 1}}),
                _object({"id": TEXT, "class": TEXT}),
            ]
        },
        "Judgement": _object(
            {
                "right": {"type": "object", "additionalProperties": {"type": "boolean"}},
                "accuracy": numbers,
                "counts": {"type": "object", "additionalProperties": {"type": "integer"}},
            },
            errors=numbers,
            mean_absolute_error=numbers,
        ),
        "Error": _object({"error": TEXT}),
        "Anything": {},
    }


def _responses(answer: str, error: str) -> dict[Any, Any]:
    refused = {
        "description": "Refused, with the reason",
        "content": {"application/json": {"schema": _reference(error)}},
    }
    success = {"description": "Answered", "content": {"application/json": {"schema": _reference(answer)}}}
    return {200: success, "4XX": refused, 503: {**refused, "description": "Busy; try again after Retry-After seconds"}}


def with_body(request: str, answer: str, error: str, *kinds: str) -> dict[str, Any]:
    """Make the arguments of a route with a body: JSON of schema `request`, or a file of one content type of `kinds`."""
    binary = {"type": "string", "format": "binary"}
    content = {kind: {"schema": binary} for kind in kinds} or {"application/json": {"schema": _reference(request)}}
    extra = {"requestBody": {"required": True, "content": content}}
    return {"responses": _responses(answer, error), "openapi_extra": extra, "response_model": None}


def without_body(answer: str = "Anything") -> dict[str, Any]:
    """Make the arguments of a route without a body."""
    return {"responses": _responses(answer, "Error"), "response_model": None}


def plain(summary: str, kind: str = "application/json") -> dict[str, Any]:
    """Make the arguments of a route whose answer is text of the content type `kind`."""
    responses = _responses("Anything", "Error")
    responses[200] = {"description": summary, "content": {kind: {"schema": TEXT if kind == "text/plain" else {}}}}
    return {"summary": summary, "responses": responses, "response_model": None}


def describe(app: FastAPI, gateway: Gateway, secured: bool) -> None:
    """Add the tasks that are served now, the shape of their images, and the bearer token to the document of `app`."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        app.openapi_schema = None
        document = original()
        if gateway.ready:
            document["components"] = {"schemas": schemas(gateway.shape, gateway.limits.batch, gateway.tasks)}
        if secured:
            document.setdefault("components", {})["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{"token": []}]
        for name, path in document["paths"].items():
            for method in path.values():
                if "{version}" in name:
                    version = {"name": "version", "in": "path", "required": True, "schema": {"type": "string"}}
                    method["parameters"].append(version)
                method["responses"].pop("422", None)
                for parameter in method.get("parameters", []):
                    if parameter["name"] == "task" and gateway.ready:
                        parameter["schema"]["enum"] = list(gateway.tasks)
                    if parameter["name"] == "version" and gateway.ready:
                        parameter["schema"]["enum"] = [gateway.version]
        return document

    app.openapi = openapi  # type: ignore[method-assign]
