"""Decoding of an image file to upright RGB of 8 bits a channel."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageOps
from tqdm import tqdm

from mtl.errors import UserError
from mtl.sources import kinds

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")

_Item = TypeVar("_Item")
# Pillow keeps the orientation of an image in one of these, for JPEG and PNG alike.
_METADATA = frozenset({"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"})
_TURNED = range(2, 9)  # values of Exif's orientation that turn or mirror the image


def decode(content: bytes, name: str, size: int | None = None) -> tuple[np.ndarray, str]:
    """Decode an image file to uint8 (H, W, 3); also return its format: `png`, `jpeg`, `webp` or `bmp`.

    Grey, palette, CMYK and 16-bit images become RGB of 8 bits. The orientation in the file is applied, and transparency
    is dropped, as PyTorch's ImageFolder and Keras do. With `size`, the image is resized to size x size (bilinear over
    all the pixels that a new one covers), whatever its proportions.

    Raises UserError, which names `name`, where the file is no whole image or has more pixels than Pillow accepts.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            kind = "jpeg" if image.format == "MPO" else str(image.format).lower()  # a camera's JPEG of several pictures
            image.load()
            upright = image if is_upright(image) else ImageOps.exif_transpose(image)
            rgb = _to_rgb(upright)
            return np.asarray(rgb if size is None else resize(rgb, size)), kind
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(f"{name}: more than {Image.MAX_IMAGE_PIXELS:,} pixels; make the image smaller") from None
    except Exception as error:  # on broken files decoders raise errors of any type
        reason = _reason(error, content)
        raise UserError(f"{name}: not a whole image ({reason}); replace or remove it") from error


def is_upright(image: Image.Image) -> bool:
    """Return False if the metadata of a loaded image turn or mirror it.

    Cameras write metadata into every file, so their presence alone means nothing.
    """
    return _METADATA.isdisjoint(image.info) or image.getexif().get(ExifTags.Base.Orientation, 1) not in _TURNED


def resize(image: Image.Image, size: int) -> Image.Image:
    """Resize to size x size; an image of that size is returned as it is."""
    return image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BILINEAR)


def fitted(pixels: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Resize a decoded image, uint8 (h, w, 3), to the height and width of `shape`, as `decode` does."""
    height, width, _ = shape
    if pixels.shape == shape:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


@contextmanager
def no_bombs() -> Iterator[None]:
    """Turn Pillow's warning about too many pixels into an error within this context."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def progress(items: Iterable[_Item], total: int, what: str) -> Iterator[_Item]:
    """Yield `items` with a progress bar on stderr after two seconds, in a log with a line every ten seconds."""
    interval = 0.1 if sys.stderr.isatty() else 10
    yield from tqdm(items, what, total, unit=" images", delay=2, mininterval=interval, file=sys.stderr)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits: Pillow would cut off at 255 where the high byte is meant
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _reason(error: Exception, content: bytes) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return kinds.identify(content) or ("of another kind" if content else "an empty file")
    return " ".join(str(error).split()) or type(error).__name__
