"""MLflow's scoring protocol (`/invocations`), for models whose signature is one unnamed uint8 tensor of images.

https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally/

Some input that is no image is refused here, but accepted by MLflow 3.17: numbers in quotes, true and false, and in
`dataframe_split` pixels beyond 0 to 255, which MLflow wraps around.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mtl.serving.pixels import Shape, check_shape, from_nested, from_numbers, parse_json
from mtl.serving.refusals import Refused, encoded_image, wrong_shape

FORMATS = ("instances", "inputs", "dataframe_split", "dataframe_records")
CODES = {400: "BAD_REQUEST", 404: "ENDPOINT_NOT_FOUND", 408: "REQUEST_TIMEOUT", 500: "INTERNAL_ERROR"}
CODES |= {401: "UNAUTHENTICATED", 503: "TEMPORARILY_UNAVAILABLE"}


def check_content_type(value: str | None) -> None:
    """Raise Refused (415) unless the content type is JSON in UTF-8."""
    kind, *options = [part.strip().lower() for part in (value or "").split(";")]
    if kind != "application/json":
        raise Refused(f"content type {value!r}; send application/json", 415)
    if any(option.replace('"', "") not in ("", "charset=utf-8") for option in options):
        raise Refused(f"content type {value!r}; only charset=utf-8 may follow application/json", 415)


def images(body: bytes, shape: Shape) -> np.ndarray:
    """Read the images of a request, uint8 (N, H, W, C). Raises Refused."""
    content = parse_json(body)
    keys = [name for name in FORMATS if name in content]
    if len(keys) != 1:
        raise Refused(f"the body must have exactly one of {', '.join(FORMATS)}; it has {', '.join(keys) or 'none'}")
    key, value = keys[0], content[keys[0]]
    if key.startswith("dataframe"):
        return _from_table(_rows(key, value), shape)
    if key == "instances" and isinstance(value, list) and value and isinstance(value[0], dict):
        if "b64" in value[0]:
            raise encoded_image("b64")
        raise wrong_shape("instances by name; the model has one unnamed input, send the images as nested lists")
    return from_nested(value, shape, fractions=True)


def _rows(key: str, value: Any) -> list[list[Any]]:
    """Read the rows of a table, each a list of its cells."""
    if key == "dataframe_records":
        if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
            raise Refused("dataframe_records must be a list of objects")
        return [list(row.values()) for row in value]
    if not isinstance(value, dict) or not {"data"} <= set(value) <= {"columns", "index", "data"}:
        raise Refused("dataframe_split must be an object with data, and may have columns and index")
    rows = value["data"]
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise Refused("dataframe_split.data must be a list of rows")
    for name, count in (("columns", len(rows[0]) if rows else 0), ("index", len(rows))):
        labels = value.get(name)
        if labels is not None and (not isinstance(labels, list) or len(labels) != count):
            raise Refused(f"dataframe_split.{name} does not fit the data")
    return rows


def _from_table(rows: list[list[Any]], shape: Shape) -> np.ndarray:
    """Read images from a table of one column, whose cells are flat lists of pixels."""
    if not rows:
        raise wrong_shape("an empty table: send at least one image")
    if any(len(row) != 1 or not isinstance(row[0], list) for row in rows):
        raise wrong_shape("the table must have one column, with an image's pixels as a flat list in each row")
    size = int(np.prod(shape))
    if any(len(row[0]) != size or list in map(type, row[0]) for row in rows):
        raise wrong_shape(f"each row must hold the {size} pixels of an image {list(shape)} as a flat list")
    array = np.concatenate([from_numbers(row[0], fractions=True) for row in rows]).reshape(-1, *shape)
    check_shape(array.shape, shape)
    return array


def answer(outputs: np.ndarray) -> dict[str, Any]:
    """Make the body of a response."""
    return {"predictions": outputs}


def error(refused: Refused) -> dict[str, str]:
    """Make the body of an error."""
    return {"error_code": refused.code or CODES.get(refused.status, "BAD_REQUEST"), "message": str(refused)}
