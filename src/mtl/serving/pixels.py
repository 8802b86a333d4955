"""What clients send as images -> uint8 arrays. Most of a request's cost is here, so numbers are checked in C."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import orjson

from mtl.errors import UserError
from mtl.serving.refusals import WAY, Refused, encoded, of_shape

Shape = tuple[int, int, int]


def parse_json(body: bytes) -> dict[str, Any]:
    """A JSON object; raises Refused where `body` is none (NaN and Infinity are no JSON)."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        hint = " (NaN and Infinity are no JSON)" if b"NaN" in body or b"Infinity" in body else ""
        raise Refused(f"the body is not valid JSON{hint}: {error}") from None
    if not isinstance(content, dict):
        raise Refused(f"the body must be a JSON object, not {_kind(content)}")
    return content


def from_nested(value: Any, shape: Shape, fractions: bool = False) -> np.ndarray:
    """Images from lists of rows of pixels of channels.

    Args:
        value: N images as nested lists of numbers from 0 to 255.
        shape: height, width and channels that the model takes.
        fractions: cut off what is behind the decimal point, as MLflow does, instead of refusing it; but pixels that
            were scaled to 0 to 1, or -1 to 1, are refused here too, for all of them would be black.

    Returns:
        uint8 (N, H, W, C).

    Raises:
        Refused: numbers of another shape, type or range; lists of different lengths; no image.
    """
    level, found = [value], []
    for _ in range(1 + len(shape)):
        kinds = set(map(type, level))
        if kinds != {list}:
            if any(isinstance(item, dict) and "b64" in item for item in level):
                raise encoded("b64")
            if list in kinds or kinds - {int, float}:
                hint = f": {WAY}" if kinds & {dict, str} else ""
                raise Refused(f"images must be lists of numbers, found {_kinds(kinds)} in them{hint}")
            break
        lengths = set(map(len, level))
        if len(lengths) > 1:
            raise Refused(f"the lists in axis {len(found)} have different lengths, such as {sorted(lengths)[:2]}")
        found.append(lengths.pop())
        level = list(chain.from_iterable(level))
    check_shape(found, shape)
    return from_numbers(level, fractions).reshape(found)


def from_numbers(numbers: Sequence[Any], fractions: bool = False) -> np.ndarray:
    """A flat list of numbers from 0 to 255 as uint8 (n,); raises Refused."""
    kinds = set(map(type, numbers))
    if kinds == {int}:
        try:
            return np.frombuffer(bytes(numbers), np.uint8)
        except (ValueError, OverflowError):
            raise Refused(f"pixels must be from 0 to 255, found {min(numbers)} to {max(numbers)}") from None
    if kinds - {int, float}:
        raise Refused(f"pixels must be numbers, found {_kinds(kinds)}")
    values = np.array(numbers, np.float64)
    whole = np.trunc(values)
    if not fractions and not np.array_equal(values, whole):
        raise Refused("pixels must be whole numbers from 0 to 255, found fractions")
    if fractions and (np.abs(values) <= 1).all() and not np.array_equal(values, whole):
        raise Refused(f"pixels must be from 0 to 255, found fractions from {values.min():g} to {values.max():g}")
    if not ((whole >= 0) & (whole <= 255)).all():
        raise Refused(f"pixels must be from 0 to 255, found {values.min():g} to {values.max():g}")
    return whole.astype(np.uint8)


def check_shape(found: Sequence[int], shape: Shape) -> None:
    """Raises Refused unless `found` is (N, *shape) with at least one image."""
    if list(found[:1]) == [0]:
        raise of_shape("an empty batch: send at least one image")
    if tuple(found[1:]) != shape or len(found) != 4:
        raise of_shape(f"shape {list(found)}; the model takes {[-1, *shape]}")


def from_file(content: bytes, shape: Shape, limit: int) -> np.ndarray:
    """Decode one PNG or JPEG as the training images were, uint8 (1, H, W, 3).

    Raises Refused where it is no whole image or has more than `limit` pixels, which is seen before it is unpacked.
    """
    from PIL import Image

    from mtl.sources import decoding

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=decoding.FORMATS) as image:
                width, height = image.size
    except Image.DecompressionBombError:
        raise Refused(f"the image has more than {limit:,} pixels; make it smaller", 413) from None
    except Exception:
        raise Refused("the body is not a PNG or JPEG image; send the file as it is: curl --data-binary @FILE") from None
    if width * height > limit:
        raise Refused(f"the image has {width}×{height} pixels, more than {limit:,}; make it smaller", 413)
    try:
        array, _ = decoding.decode(content, "the body")
    except UserError as error:
        raise Refused(str(error).partition("; replace")[0]) from None
    return decoding.fitted(array, shape)[None]


def _kind(value: object) -> str:
    return _kinds({type(value)})


def _kinds(kinds: set[type]) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return " and ".join(sorted(names.get(kind, "a number") for kind in kinds))
