"""Conversion of clients' images to uint8 arrays. Most of a request's time goes here, so C code checks the numbers."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import orjson

from mtl.errors import UserError
from mtl.serving.refusals import ADVICE, Refused, encoded_image, wrong_shape

Shape = tuple[int, int, int]


def parse_json(body: bytes) -> dict[str, Any]:
    """Parse a JSON object; raises Refused if `body` is not one (JSON has no NaN and Infinity)."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        hint = " (JSON has no NaN and Infinity)" if b"NaN" in body or b"Infinity" in body else ""
        raise Refused(f"the body is not valid JSON{hint}: {error}") from None
    if not isinstance(content, dict):
        raise Refused(f"the body must be a JSON object, not {_kind(content)}")
    return content


def from_nested(value: Any, shape: Shape, fractions: bool = False) -> np.ndarray:
    """Read images from lists of rows of pixels of channels.

    Args:
        value: N images as nested lists of numbers from 0 to 255.
        shape: the model's height, width and channels.
        fractions: cut off the digits after the decimal point, as MLflow does, instead of refusing fractions. Pixels
            that were scaled to 0 to 1, or -1 to 1, are refused even then: all of them would be black.

    Returns:
        uint8 (N, H, W, C).

    Raises:
        Refused: numbers of another shape, type or range; lists of different lengths; no image.
    """
    level: list[Any] = [value]
    sizes: list[int] = []
    for _ in range(1 + len(shape)):
        kinds = set(map(type, level))
        if kinds != {list}:
            if any(isinstance(item, dict) and "b64" in item for item in level):
                raise encoded_image("b64")
            if list in kinds or kinds - {int, float}:
                hint = f": {ADVICE}" if kinds & {dict, str} else ""
                raise Refused(f"images must be lists of numbers, found {_kinds(kinds)} in them{hint}")
            break
        lengths = set(map(len, level))
        if len(lengths) > 1:
            raise Refused(f"the lists in axis {len(sizes)} have different lengths, such as {sorted(lengths)[:2]}")
        sizes.append(lengths.pop())
        level = list(chain.from_iterable(level))
    check_shape(sizes, shape)
    return from_numbers(level, fractions).reshape(sizes)


def from_numbers(numbers: Sequence[Any], fractions: bool = False) -> np.ndarray:
    """Convert a flat list of numbers from 0 to 255 to uint8 (n,); raises Refused."""
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


def check_shape(sizes: Sequence[int], shape: Shape) -> None:
    """Raise Refused unless `sizes` are (N, *shape) with at least one image."""
    if list(sizes[:1]) == [0]:
        raise wrong_shape("an empty batch: send at least one image")
    if tuple(sizes[1:]) != shape or len(sizes) != 4:
        raise wrong_shape(f"shape {list(sizes)}; the model takes {[-1, *shape]}")


def from_file(content: bytes, shape: Shape, limit: int) -> np.ndarray:
    """Decode one image file as the training images were, uint8 (1, H, W, 3).

    Raises Refused if it is not a whole image, or has more than `limit` pixels (checked before they are decoded).
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
        raise Refused(
            "the body is no PNG, JPEG, WebP or BMP; send the file as it is: curl --data-binary @FILE"
        ) from None
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
