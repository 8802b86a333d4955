"""Messages about files that are not read: their kind, and what to do about them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")  # of the images that are read
# Offset in the file, bytes at it, kind of file.
_SIGNATURES = (
    (8, b"WEBP", "a WebP image"),
    (0, b"GIF8", "a GIF image"),
    (0, b"BM", "a BMP image"),
    (0, b"II*\0", "a TIFF image"),
    (0, b"MM\0*", "a TIFF image"),
    (4, b"ftypavi", "an AVIF image"),
    (4, b"ftyphei", "a HEIC image"),
    (4, b"ftypmif1", "a HEIC image"),
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"PK\3\4", "a zip archive"),
    (0, b"BZh", "compressed by bzip2"),
    (0, b"\xfd7zXZ", "compressed by xz"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd"),
    (0, b"7z\xbc\xaf", "a 7z archive"),
    (0, b"Rar!", "a rar archive"),
)
_HEAD = 16  # bytes at the beginning that hold every signature
_PACKED = (".zip", ".7z", ".rar", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".gz")
SHOWN = 3


def identify(content: bytes) -> str | None:
    """Return the kind of a file with this content by its first bytes, or None where it is unknown."""
    return next((kind for start, mark, kind in _SIGNATURES if content[start:].startswith(mark)), None)


def identify_file(path: Path) -> str | None:
    """Return the kind of the file `path`, as `identify` does."""
    with path.open("rb") as file:
        return identify(file.read(_HEAD))


def advise(names: Iterable[str]) -> str:
    """Say what to do about files that are not read."""
    if any(name.lower().endswith(_PACKED) for name in names):
        return "unpack it"
    return "make PNG, JPEG, WebP or BMP of the images"


def first_few(names: Collection[str], shown: int = SHOWN) -> str:
    """List the first few names: `a, b, c and 7 more`."""
    first = [name if name.isprintable() else ascii(name) for _, name in zip(range(shown), names, strict=False)]
    return ", ".join(first) + (f" and {len(names) - shown:,} more" if len(names) > shown else "")


def count_by_suffix(names: Iterable[str]) -> str:
    """Count files by their suffix and list the first: `12 .webp, 1 .zip (a.webp, b.webp, c.webp and 10 more)`."""
    names = sorted(names)
    counts = Counter(PurePosixPath(name).suffix.lower() or "without suffix" for name in names)
    by_suffix = ", ".join(f"{count:,} {suffix}" for suffix, count in counts.most_common(SHOWN + 2))
    return f"{by_suffix}{', …' if len(counts) > SHOWN + 2 else ''} ({first_few(names)})"


def hidden_images(names: Iterable[str], splits: Collection[str]) -> list[str]:
    """Select, of hidden files and folders (with `/` behind them), those that would be classes or images if visible.

    Files that macOS leaves behind (`._…`, `__MACOSX`) are not selected.
    """

    def is_image(name: str) -> bool:
        *lead, split, label, file = ["", "", *name.split("/")]
        if len(lead) > 3 or split.lower() not in splits or label == "__MACOSX":
            return False
        return not file or (file.lower().endswith(SUFFIXES) and not file.startswith("._"))

    return sorted(filter(is_image, names))


def explain_no_images(others: Collection[str], hidden: Collection[str], or_else: str = ", or one tar of it") -> str:
    """Say what is there instead of images, and what is expected."""
    expected = f"expected <split>/<class>/*.png (or jpg, jpeg, webp, bmp){or_else}"
    if others:
        return f"no images that are read, but {count_by_suffix(others)}; {advise(others)}: {expected}"
    if hidden:
        return f"no images, but {first_few(hidden)}, which is hidden; rename it: {expected}"
    return f"no images; {expected}"


def report_left_out(source: str, others: Collection[str], hidden: Collection[str]) -> None:
    """Print on stderr which files of `source` are not read."""
    if others:
        print(
            f"{source}: left out {len(others):,} files that are no images: {count_by_suffix(others)}",
            file=sys.stderr,
        )
    if hidden:
        print(f"{source}: left out {len(hidden):,} hidden classes or images: {first_few(hidden)}", file=sys.stderr)
