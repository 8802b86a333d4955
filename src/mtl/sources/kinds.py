"""What kind of file it is that is not read, and what would be right instead."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath

SUFFIXES = (".png", ".jpg", ".jpeg")  # of the images that are read
# Where in the file, what is there, what that makes it.
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
_HEAD = 16  # bytes that tell
_PACKED = (".zip", ".7z", ".rar", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".gz")
SHOWN = 3


def of(content: bytes) -> str | None:
    """What a file with this content is, by its first bytes; None where they do not tell."""
    return next((kind for start, there, kind in _SIGNATURES if content[start:].startswith(there)), None)


def of_file(path: Path) -> str | None:
    """`of` the file `path`."""
    with path.open("rb") as file:
        return of(file.read(_HEAD))


def advice(names: Iterable[str]) -> str:
    """What to do about files that are not read."""
    if any(name.lower().endswith(_PACKED) for name in names):
        return "unpack it"
    return "make PNG or JPEG of the images"


def some(names: Collection[str], shown: int = SHOWN) -> str:
    """`a, b, c and 7 more`: the first few names."""
    first = [name if name.isprintable() else ascii(name) for _, name in zip(range(shown), names, strict=False)]
    return ", ".join(first) + (f" and {len(names) - shown:,} more" if len(names) > shown else "")


def described(names: Iterable[str]) -> str:
    """`12 .webp, 1 .zip (a.webp, b.webp, c.webp and 10 more)`: files by their suffix, and the first of them."""
    names = sorted(names)
    counts = Counter(PurePosixPath(name).suffix.lower() or "without suffix" for name in names)
    by_suffix = ", ".join(f"{count:,} {suffix}" for suffix, count in counts.most_common(SHOWN + 2))
    return f"{by_suffix}{', …' if len(counts) > SHOWN + 2 else ''} ({some(names)})"


def hidden(names: Iterable[str], splits: Collection[str]) -> list[str]:
    """Those of the hidden files and folders (with `/` behind them) that would be classes or images if they were not.

    What macOS and others leave behind (`._…`, `__MACOSX`) is none.
    """

    def counts(name: str) -> bool:
        *lead, split, label, file = ["", "", *name.split("/")]
        if len(lead) > 3 or split.lower() not in splits or label == "__MACOSX":
            return False
        return not file or (file.lower().endswith(SUFFIXES) and not file.startswith("._"))

    return sorted(filter(counts, names))


def no_images(others: Collection[str], hidden: Collection[str], or_else: str = ", or one tar of it") -> str:
    """Say what there is where no images are, and what would be right."""
    expected = f"expected <split>/<class>/*.png, *.jpg or *.jpeg{or_else}"
    if others:
        return f"no images that are read, but {described(others)}; {advice(others)}: {expected}"
    if hidden:
        return f"no images, but {some(hidden)}, which is hidden; rename it: {expected}"
    return f"no images; {expected}"


def say_left_out(where: str, others: Collection[str], hidden: Collection[str]) -> None:
    """Say on stderr which files of `where` are not read."""
    if others:
        what = f"{len(others):,} files that are no PNG or JPEG: {described(others)}"
        print(f"{where}: left out {what}", file=sys.stderr)
    if hidden:
        print(f"{where}: left out {len(hidden):,} hidden classes or images: {some(hidden)}", file=sys.stderr)
