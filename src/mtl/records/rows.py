"""Which images there are: rows of a CSV or of a tree of class folders, and the shards they go to."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import PurePosixPath

import numpy as np

from mtl import addresses
from mtl.errors import UserError, one_line
from mtl.records import files
from mtl.shards import SPLITS
from mtl.sources import split
from mtl.sources.decoding import SUFFIXES

COLUMNS = ("split", "image_uri", "label")
MAX_CLASSES = 256  # labels are uint8


@dataclass(frozen=True)
class Row:
    """One image: its split (train, validation or test), its name in the input, where it is, its class."""

    split: str
    name: str
    uri: str
    label: str


@dataclass(frozen=True)
class Plan:
    """The file of a shard and the rows that go into it; `classes` are those of all shards, in label order."""

    file: str
    split: str
    classes: tuple[str, ...]
    rows: tuple[Row, ...]


def read(source: str) -> list[Row]:
    """The rows of a CSV file, or of a folder of <split>/<class>/<file>. Raises UserError where there are none."""
    refuse_secret(source)
    if not files.exists(source):
        raise UserError(f"{source}: no such file or folder; give a CSV of {','.join(COLUMNS)}, or a folder of images")
    rows = _from_csv(source) if source.endswith(".csv") else _from_tree(source)
    if not rows:
        raise UserError(f"{source}: no images in it")
    classes = {row.label for row in rows}
    if len(classes) > MAX_CLASSES:
        raise UserError(f"{source}: {len(classes)} labels; up to {MAX_CLASSES} are possible")
    return rows


def refuse_secret(address: str, where: str = "") -> None:
    """Raise UserError, beginning with `where`, where an address has a password in it: shards hold the addresses."""
    if fault := addresses.fault(address):
        raise UserError(f"{where}{fault}")


def _from_csv(source: str) -> list[Row]:
    try:
        lines = csv.DictReader(io.StringIO(files.read(source).decode("utf-8-sig"), newline=""))
        missing = [name for name in COLUMNS if name not in (lines.fieldnames or ())]
        if missing:
            raise UserError(f"{source}: no column {missing[0]!r}; the first line must be {','.join(COLUMNS)}")
        return [_row(source, f"{source}: line {lines.line_num}", line) for line in lines]
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{source}: not a CSV file in UTF-8: {one_line(error)}") from None


def _row(source: str, where: str, line: dict[str, str | None]) -> Row:
    given, uri, label = ((line[name] or "").strip() for name in COLUMNS)
    if given.lower() not in SPLITS:
        raise UserError(f"{where}: split {given!r}: unknown; use one of {', '.join(SPLITS).upper()}")
    if not uri or not label.isprintable() or not label:
        raise UserError(f"{where}: {'label' if uri else 'image_uri'} is empty or no text")
    refuse_secret(uri, f"{where}: ")
    inside = files.is_remote(uri) or uri.startswith("/")
    folder = source.rpartition("/")[0] if "/" in source else "."
    return Row(given.lower(), uri, uri if inside else files.join(files.absolute(folder), uri), label)


def _from_tree(source: str) -> list[Row]:
    """An image's split and class are the two folders it is in; one folder above the splits is passed over."""
    rows = []
    for name in files.listing(source):
        if not name.lower().endswith(SUFFIXES):
            continue
        place = PurePosixPath(name).parts
        if len(place) not in (3, 4) or place[-3].lower() not in SPLITS:
            raise UserError(
                f"{source}: {name} is not at <split>/<class>/<file> with a split of {', '.join(SPLITS)}; move it"
            )
        rows.append(Row(place[-3].lower(), name, files.join(files.absolute(source), name), place[-2]))
    return rows


def hold_out(rows: list[Row], count: int, seed: int, source: str) -> list[Row]:
    """`rows` with `count` of those of train as validation, stratified by label, as `load_data` holds out."""
    if not count:
        return rows
    if any(row.split == "validation" for row in rows):
        raise UserError(f"{source}: has a split VALIDATION already; leave --validation out")
    train = [index for index, row in enumerate(rows) if row.split == "train"]
    names = sorted({row.label for row in rows})
    labels = np.array([[names.index(rows[index].label)] for index in train], np.uint8)
    chosen = {train[place] for place in split.hold_out(labels, count, seed)}
    return [replace(row, split="validation") if index in chosen else row for index, row in enumerate(rows)]


def plan(rows: Sequence[Row], records: int) -> list[Plan]:
    """Shards of up to `records` images. In each split the images are mixed by a hash of their names, always alike."""
    classes = tuple(sorted({row.label for row in rows}))
    plans = []
    for name in SPLITS:
        mixed = sorted((row for row in rows if row.split == name), key=_mix)
        count = -(-len(mixed) // records)
        for number in range(count):
            part = mixed[number * len(mixed) // count : (number + 1) * len(mixed) // count]
            plans.append(Plan(f"{name}-{number:05d}-of-{count:05d}.tfrecord.gz", name, classes, tuple(part)))
    return plans


def _mix(row: Row) -> tuple[bytes, str]:
    return blake2b(row.name.encode("utf-8", "surrogateescape"), digest_size=8).digest(), row.name
