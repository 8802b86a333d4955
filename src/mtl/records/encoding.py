"""Encoding of an image as a record of a TFRecord file, without TensorFlow, which takes a worker seconds to import."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mtl.config.params import ColumnType
from mtl.errors import UserError
from mtl.sources import decoding, duplicates

_SHORT = tuple(bytes([value]) for value in range(128))
PLAIN = ("RGB", "L")  # TensorFlow decodes these as Pillow does


@dataclass(frozen=True)
class Encoded:
    """A whole PNG or JPEG file, upright and of 8 bits a channel, its size in pixels and the digest of its pixels."""

    content: bytes
    height: int
    width: int
    channels: int
    encoding: str  # png or jpeg
    digest: int


def prepare(content: bytes, name: str) -> Encoded:
    """Check that an image file decodes; return an upright PNG or JPEG, RGB or grey, unchanged, any other as a PNG.

    Must be called within `decoding.no_bombs()`. Raises UserError, which names `name`, where the file is no whole image.
    """
    try:
        with Image.open(io.BytesIO(content), formats=decoding.FORMATS) as image:
            image.load()  # reads to the end, where a PNG may have its orientation
            if image.mode in PLAIN and image.format not in ("WEBP", "BMP") and decoding.is_upright(image):
                kind = "png" if image.format == "PNG" else "jpeg"
                digest = duplicates.digest(np.asarray(image if image.mode == "RGB" else image.convert("RGB")))
                return Encoded(content, image.height, image.width, len(image.getbands()), kind, digest)
    except Exception:  # on broken files decoders raise errors of any type; `decode` describes them
        decoding.decode(content, name)
        raise UserError(f"{name}: not a whole image") from None
    pixels, _ = decoding.decode(content, name)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    height, width, channels = pixels.shape
    return Encoded(file.getvalue(), height, width, channels, "png", duplicates.digest(pixels))


RESERVED = ("image", "image_name", "image_height", "image_width", "image_channels", "image_encoding", "split")
Value = str | int | float | bool | None


def serialize(image: Encoded, name: str, split: str, types: Mapping[str, ColumnType], values: Sequence[Value]) -> bytes:
    """Serialize a tf.train.Example with the keys RESERVED and one of each column; None is an empty list.

    A text is a bytes_list in UTF-8; an integer or a boolean an int64_list; a number a bytes_list of its shortest
    decimal text, from which the float64 comes back to the bit, as a float_list has 32 bits.

    In protobuf's wire format (https://protobuf.dev/programming-guides/encoding/): Example.features = 1, a map entry of
    Features.feature = 1 has key = 1 and value = 2, Feature.bytes_list = 1 and .int64_list = 3, each with value = 1.
    """
    contents: tuple[bytes | int, ...] = (
        image.content,
        name.encode("utf-8", "surrogateescape"),
        image.height,
        image.width,
        image.channels,
        image.encoding.encode(),
        split.upper().encode(),
    )
    features = [(key, _feature(content)) for key, content in zip(RESERVED, contents, strict=True)]
    features += [(key, _column(kind, value)) for (key, kind), value in zip(types.items(), values, strict=True)]
    return _field(1, b"".join(_field(1, _field(1, key.encode()) + _field(2, feature)) for key, feature in features))


def _column(kind: ColumnType, value: Value) -> bytes:
    if value is None:
        return _field(3 if kind in ("integer", "boolean") else 1, b"")
    if kind in ("integer", "boolean"):
        return _feature(int(value))
    return _feature((repr(float(value)) if kind == "number" else str(value)).encode())


def _feature(value: bytes | int) -> bytes:
    if isinstance(value, int):
        return _field(3, _field(1, _varint(value & 0xFFFFFFFFFFFFFFFF)))  # packed
    return _field(1, _field(1, value))


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    if value < len(_SHORT):
        return _SHORT[value]
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def frame(data: bytes) -> bytes:
    """Frame a record for a TFRecord file (https://www.tensorflow.org/tutorials/load_data/tfrecord)."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, _masked(length), data, _masked(data)))


def _masked(data: bytes) -> bytes:
    from google_crc32c import value

    crc = value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
