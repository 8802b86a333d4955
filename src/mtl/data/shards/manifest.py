"""What a folder of shards holds, and its files on this machine."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from mtl import files
from mtl.config.reading import first_line
from mtl.config.settings import Settings, like
from mtl.errors import UserError, one_line

MANIFEST = "manifest.json"
SPLITS = ("train", "validation", "test")
_MISSING = "this shard of the manifest is missing; copy it there or convert again"
FETCHED = Path(".shards")  # no DVC out: copies of shards that are not on this machine, by their checksum


class Shard(Settings):
    """One file: how many records and bytes it has, and its sha256."""

    file: Annotated[str, like(r"[\w.-]+", "the name of a file in this folder")]
    records: int = Field(ge=0)
    bytes: int = Field(ge=0)
    sha256: Annotated[str, like(r"[0-9a-f]{64}", "a sha256 of 64 digits from 0 to f")]


class SplitRecords(Settings):
    """The shards of a split, and how many records of each class are in them."""

    shards: tuple[Shard, ...]
    classes: dict[str, int]

    @property
    def count(self) -> int:
        """Number of records."""
        return sum(shard.records for shard in self.shards)


class Discarded(Settings):
    """Files that could not be read: how many, where they are listed with the reason, and how often each reason."""

    count: int
    files: tuple[str, ...]
    reasons: dict[str, int]


class Duplicates(Settings):
    """Images of the same pixels: how many are in another split, or of another class, than the first of them.

    `first` names, for `splits` and `classes`, the first two of them.
    """

    splits: int
    classes: int
    first: dict[str, tuple[str, str]]


class Manifest(Settings):
    """What a folder of shards holds. `height` and `width` are the smallest and the largest of the images.

    `duplicates` is None in a manifest of an earlier version, which did not look for any.
    """

    version: int = Field(1, ge=1, le=1)
    name: str
    classes: tuple[str, ...] = Field(min_length=1, max_length=256)
    encoding: str
    height: tuple[int, int]
    width: tuple[int, int]
    splits: dict[str, SplitRecords]
    discarded: Discarded
    duplicates: Duplicates | None = None


class Place(Settings):
    """What data/raw says besides the manifest: where the shards are and how they are read.

    `size`: images are resized to size x size; None: as they are. `cache`: up to so many MiB of decoded images are held
    in memory; where there are more, they are streamed.
    """

    path: str
    size: int | None
    cache: int


def parse(content: Any, where: str) -> Manifest:
    """The manifest that `content` (parsed JSON) is; raises UserError, naming `where`, for anything else."""
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        fault = first_line(error, "it may be of a newer version")
        raise UserError(f"{where}: not a manifest of `mtl convert`: {fault}") from None
    for name, split in manifest.splits.items():
        unknown = [label for label in split.classes if label not in manifest.classes]
        if name not in SPLITS or unknown:
            raise UserError(f"{where}: splits.{name}: unknown {'class ' + repr(unknown[0]) if unknown else 'split'}")
    return manifest


def is_remote(path: str) -> bool:
    """Whether `path` is a URI that fsspec opens rather than a path of this machine."""
    return "://" in path


def join(path: str, name: str) -> str:
    """The file `name` in the folder `path`, a path or a URI."""
    return f"{path.rstrip('/')}/{name}"


def local(path: str, shard: Shard) -> Path:
    """Where `shard` of the folder `path` can be read on this machine; one that is elsewhere is copied first, once.

    Raises UserError where it is not there, or not as the manifest says.
    """
    if not is_remote(path):
        found = Path(path, shard.file)
        check(found, shard, content=False)
        return found
    copy = FETCHED / f"{shard.sha256}.tfrecord.gz"
    if not copy.exists():
        import fsspec

        try:
            with fsspec.open(join(path, shard.file), "rb") as source, files.replacing(copy) as temporary:
                with temporary.open("wb") as file:
                    while block := source.read(1 << 20):
                        file.write(block)
                check(temporary, shard, join(path, shard.file))
        except UserError:
            raise
        except Exception as error:  # each file system of fsspec raises its own
            raise UserError(f"{join(path, shard.file)}: cannot be read: {one_line(error)}") from error
    return copy


def check(path: Path, shard: Shard, name: str | None = None, content: bool = True) -> None:
    """Raise UserError where the file `path` has not the size and (with `content`) the checksum of `shard`."""
    name = name or str(path)
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise UserError(f"{name}: {_MISSING}") from None
    if size != shard.bytes:
        what = "truncated" if size < shard.bytes else "another file"
        raise UserError(f"{name}: {what}: {size:,} bytes, the manifest says {shard.bytes:,}; {_again(path)}")
    if content:
        check_content(path, shard.sha256, name)


def check_content(path: Path, sha256: str, name: str) -> None:
    """Raise UserError where the file `path` has not this checksum."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise UserError(f"{name}: {_MISSING}") from None
    if found != sha256:
        raise UserError(f"{name}: its sha256 is {found}, the manifest says {sha256}; {_again(path)}")


def _again(path: Path) -> str:
    return "remove it, and it is copied again" if path.parent == FETCHED else "copy it again"
