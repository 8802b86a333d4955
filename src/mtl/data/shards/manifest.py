"""The manifest of a folder of shards, and checks of the shards against it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from mtl import files
from mtl.config.params import ColumnType
from mtl.config.reading import first_line
from mtl.config.settings import Settings, like
from mtl.data import remote
from mtl.errors import UserError, one_line
from mtl.tasks.columns import SPLITS

MANIFEST = "manifest.json"
VERSION = 2
_MISSING = "this shard of the manifest is missing; copy it there or convert again"
FETCHED = Path(".shards")  # no DVC out: copies of shards behind URIs, named by their checksum


class Shard(Settings):
    """One file: its name, its numbers of records and of bytes, and its sha256."""

    file: Annotated[str, like(r"[\w.-]+", "the name of a file in this folder")]
    records: int = Field(ge=0)
    bytes: int = Field(ge=0)
    sha256: Annotated[str, like(r"[0-9a-f]{64}", "a sha256 of 64 digits from 0 to f")]


class Column(Settings):
    """A column of the table: its name, which is the key of its feature in each record, and its type."""

    name: Annotated[str, Field(min_length=1)]
    type: ColumnType


class SplitRecords(Settings):
    """The shards of a split, and the number of records that have a value in each column; version 1: of each class."""

    shards: tuple[Shard, ...]
    known: dict[str, int] = Field(default_factory=dict)
    classes: dict[str, int] = Field(default_factory=dict)

    @property
    def count(self) -> int:
        """Number of records in all shards."""
        return sum(shard.records for shard in self.shards)


class Discarded(Settings):
    """Images that could not be read: their number, the files that list them, and the number for each reason."""

    count: int
    files: tuple[str, ...]
    reasons: dict[str, int]


class Duplicates(Settings):
    """Images of the same pixels: the numbers of those in another split, or of another value, than the first of them.

    `first` names, for `splits` and `classes`, the first few pairs of such images.
    """

    splits: int
    classes: int
    first: dict[str, tuple[str, ...]]


class Manifest(Settings):
    """The content of a folder of shards. `height` and `width` are the smallest and the largest of the images.

    Version 1 has `classes` instead of `columns`: its records have one label, int64, a number of a class.
    `duplicates` is None in a manifest of an earlier version, which did not look for duplicates.
    """

    version: int = Field(default=VERSION, ge=1, le=VERSION)
    name: str
    columns: tuple[Column, ...] = ()
    classes: tuple[str, ...] = Field(default=(), max_length=256)
    encoding: str
    height: tuple[int, int]
    width: tuple[int, int]
    splits: dict[str, SplitRecords]
    discarded: Discarded
    duplicates: Duplicates | None = None

    @model_validator(mode="after")
    def _has_columns(self) -> Self:
        if not (self.classes if self.version == 1 else self.columns):
            raise ValueError(f"{'classes' if self.version == 1 else 'columns'}: is missing or empty")
        names = [column.name for column in self.columns]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"columns: {twice[0]!r} is listed twice")
        return self

    @property
    def types(self) -> dict[str, ColumnType]:
        """The type of each column, in their order."""
        return {column.name: column.type for column in self.columns}


class Access(Settings):
    """Where the shards are and how they are read, as data/raw holds it beside the manifest.

    Images are resized to `size` x `size`, or left as they are where it is None. Up to `cache` MiB of decoded images are
    held in memory. If there are more, they are streamed.
    """

    path: str
    size: int | None
    cache: int


def parse(content: Any, where: str) -> Manifest:
    """Validate `content`, parsed from the JSON at `where`, as a manifest; raises UserError, which names `where`."""
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        fault = first_line(error, "it may be of a newer version")
        raise UserError(f"{where}: not a manifest of `mtl convert`: {fault}") from None
    for name in manifest.splits:
        if name not in SPLITS:
            raise UserError(f"{where}: splits.{name}: unknown split; they are {', '.join(SPLITS)}")
    return manifest


def read_manifest(folder: str) -> Manifest:
    """Read the manifest in `folder`, a path or a URI. Raises UserError where it is missing or invalid."""
    address = remote.join(folder, MANIFEST)
    try:
        content = remote.read(address)
    except FileNotFoundError:
        raise UserError(f"{address} is missing; make shards of your images with `mtl convert`") from None
    except UserError:
        raise
    except Exception as error:  # each file system of fsspec raises its own
        raise UserError(f"{address}: cannot be read: {one_line(error)}") from error
    try:
        return parse(json.loads(content), address)
    except ValueError as error:
        raise UserError(f"{address}: not valid JSON ({one_line(error)}); convert again") from None


def check_shards(folder: str, split: SplitRecords) -> list[Path]:
    """Check size and checksum of all shards of a split and return where they are on this machine.

    Raises UserError where a shard is missing or differs from the manifest.
    """
    paths = []
    for shard in split.shards:
        paths.append(fetch(folder, shard))
        _check(paths[-1], shard, remote.join(folder, shard.file))
    return paths


def fetch(folder: str, shard: Shard) -> Path:
    """Return the path of a shard of `folder` on this machine; one behind a URI is downloaded first, once.

    Raises UserError where it is missing or of another size, or where a downloaded one has another checksum.
    """
    address = remote.join(folder, shard.file)
    if not remote.is_remote(folder):
        path = Path(folder, shard.file)
        _check_size(path, shard, address)
        return path
    copy = FETCHED / f"{shard.sha256}.tfrecord.gz"
    if not copy.exists():
        try:
            with files.replacing(copy) as temporary:
                remote.download(address, temporary)
                _check(temporary, shard, address)
        except UserError:
            raise
        except Exception as error:  # each file system of fsspec raises its own
            raise UserError(f"{address}: cannot be read: {one_line(error)}") from error
    return copy


def check_content(path: Path, sha256: str, name: str) -> None:
    """Raise UserError where the file `path`, called `name` in the message, does not have this checksum."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise UserError(f"{name}: {_MISSING}") from None
    if digest != sha256:
        raise UserError(f"{name}: its sha256 is {digest}, the manifest says {sha256}; {_remedy(path)}")


def _check(path: Path, shard: Shard, name: str) -> None:
    _check_size(path, shard, name)
    check_content(path, shard.sha256, name)


def _check_size(path: Path, shard: Shard, name: str) -> None:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise UserError(f"{name}: {_MISSING}") from None
    if size != shard.bytes:
        fault = "truncated" if size < shard.bytes else "another file"
        raise UserError(f"{name}: {fault}: {size:,} bytes, the manifest says {shard.bytes:,}; {_remedy(path)}")


def _remedy(path: Path) -> str:
    return "remove it, and it is copied again" if path.parent == FETCHED else "copy it again"
