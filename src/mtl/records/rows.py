"""The images to convert, rows of a CSV or of a tree of class folders, and the plan of the shards they go to."""

from __future__ import annotations

import csv
import io
import math
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import PurePosixPath

import numpy as np

from mtl.config import addresses
from mtl.data import remote
from mtl.errors import UserError, one_line
from mtl.sources import kinds, split, trees
from mtl.tasks.columns import SPLITS
from mtl.tasks.grouping import check_class_count

COLUMNS = ("split", "image_uri", "label")


@dataclass(frozen=True)
class Row:
    """One image: its split (train, validation or test), its name in the input, its path or URI, and its class."""

    split: str
    name: str
    uri: str
    label: str


@dataclass(frozen=True)
class Plan:
    """The file of a shard and the rows that go into it. `classes` holds those of all shards, in label order."""

    file: str
    split: str
    classes: tuple[str, ...]
    rows: tuple[Row, ...]


def read(source: str) -> list[Row]:
    """Read the rows of a CSV file, or of a folder of <split>/<class>/<file>.

    Raises UserError where there are none, where one is invalid, or where there is only one class.
    """
    refuse_secret(source)
    if not remote.exists(source):
        raise UserError(f"{source}: no such file or folder; give a CSV of {','.join(COLUMNS)}, or a folder of images")
    rows = _from_csv(source) if source.lower().endswith(".csv") else _from_tree(source)
    check_class_count(source, sorted({row.label for row in rows}))
    return rows


def refuse_secret(address: str, prefix: str = "") -> None:
    """Raise UserError, whose message begins with `prefix`, where an address, which shards contain, has a password."""
    if fault := addresses.fault(address):
        raise UserError(f"{prefix}{fault}")


def _from_csv(source: str) -> list[Row]:
    """Read a row from each line; print on stderr which columns are left out, and which rows are repeated."""
    first_lines: dict[Row, int] = {}
    repeated: list[str] = []
    rows: list[Row] = []
    try:
        lines = csv.reader(io.StringIO(remote.read(source).decode("utf-8-sig"), newline=""))
        header = next(lines, [])
        columns = _columns(source, header)
        for cells in filter(None, lines):
            prefix = f"{source}: line {lines.line_num}"
            if any(cells[len(header) :]):
                raise UserError(
                    f"{prefix}: {len(cells)} cells for {len(header)} columns; write a text with commas in quotes"
                )
            rows.append(_row(source, prefix, [cells[place] if place < len(cells) else "" for place in columns]))
            first = first_lines.setdefault(rows[-1], lines.line_num)
            if first != lines.line_num:
                repeated.append(f"line {lines.line_num} is line {first}")
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{source}: not a CSV file in UTF-8: {one_line(error)}") from None
    if not rows:
        raise UserError(f"{source}: no images in it, only the names of the columns")
    if repeated:
        _warn(f"{source}: {len(repeated):,} rows are there again: {kinds.first_few(repeated)}")
    return rows


def _columns(source: str, header: Sequence[str]) -> list[int]:
    """Return the position of each of COLUMNS, in any case; of two columns of the same name it is the last."""
    names = [cell.strip().lower() for cell in header]
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise UserError(
            f"{source}: no column {missing[0]!r}; the first line must be {','.join(COLUMNS)}, and is"
            f" {kinds.first_few(header, 9) or 'empty'}"
        )
    other = [cell for cell, name in zip(header, names, strict=True) if name not in COLUMNS]
    if other:
        _warn(f"{source}: left out {len(other):,} columns: {kinds.first_few(other)}")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        examples = kinds.first_few(repeated)
        _warn(f"{source}: {len(repeated):,} columns are there again, of which the last is read: {examples}")
    return [len(names) - 1 - names[::-1].index(name) for name in COLUMNS]


def _row(source: str, prefix: str, cells: Sequence[str]) -> Row:
    name, uri, label = (cell.strip() for cell in cells)
    if name.lower() not in SPLITS:
        raise UserError(f"{prefix}: split {name!r}: unknown; use one of {', '.join(SPLITS).upper()}")
    if not uri or not label.isprintable() or not label:
        raise UserError(f"{prefix}: {'label' if uri else 'image_uri'} is empty or no text")
    refuse_secret(uri, f"{prefix}: ")
    folder = source.rpartition("/")[0] if "/" in source else "."
    is_absolute = remote.is_remote(uri) or uri.startswith("/")
    address = uri if is_absolute else remote.join(remote.absolute(folder), uri)
    return Row(name.lower(), uri, address, unicodedata.normalize("NFC", label))


def _from_tree(source: str) -> list[Row]:
    """Read a row from each image at <split>/<class>/<file>, with or without one folder above the splits."""
    rows: list[Row] = []
    others: list[str] = []
    hidden: dict[str, None] = {}  # a set that keeps the order
    names = trees.Names(source)
    listed = remote.list_files(source)
    if listed == [""]:
        raise UserError(f"{source}: neither a .csv file nor a folder; give one of them, an archive unpacked")
    for name in listed:
        path = PurePosixPath(name)
        if part := trees.hidden_part(path, is_file=True):
            hidden[part] = None
        elif not name.lower().endswith(kinds.SUFFIXES):
            others += [] if trees.is_readme(name) else [name]
        else:
            rows.append(_tree_row(source, path, names))
    hidden_images = kinds.hidden_images(hidden, SPLITS)
    if not rows:
        raise UserError(f"{source}: {kinds.explain_no_images(others, hidden_images, ', or a CSV')}")
    kinds.report_left_out(source, others, hidden_images)
    return rows


def _tree_row(source: str, path: PurePosixPath, names: trees.Names) -> Row:
    """Make the row of the image at `path` in the tree."""
    if len(path.parts) not in (3, 4) or path.parts[-3].lower() not in SPLITS:
        raise UserError(
            f"{source}: {path} is not at <split>/<class>/<file> with a split of {', '.join(SPLITS)}; move it"
        )
    names.composed(path)
    label = PurePosixPath(names.composed(path.parent)).name
    return Row(path.parts[-3].lower(), str(path), remote.join(remote.absolute(source), str(path)), label)


def _warn(line: str) -> None:
    print(line, file=sys.stderr)


def name_data_set(source: str) -> str:
    """Return the name of the data set in the file or folder `source`: its own without `.csv`."""
    name = source.rstrip("/").rpartition("/")[2] or source
    return name.removesuffix(".csv") or "images"


def hold_out(rows: list[Row], count: int, seed: int, source: str) -> list[Row]:
    """Move `count` rows of train to validation, stratified by label, as `load_data` holds images out.

    Raises UserError where there is a validation split already, or `count` does not fit.
    """
    if not count:
        return rows
    if any(row.split == "validation" for row in rows):
        raise UserError(f"{source}: has a split VALIDATION already; leave --validation out")
    train = [index for index, row in enumerate(rows) if row.split == "train"]
    classes = sorted({row.label for row in rows})
    labels = np.array([[classes.index(rows[index].label)] for index in train], np.uint8)
    chosen = {train[position] for position in split.hold_out(labels, count, seed, f"{source}: --validation:")}
    return [replace(row, split="validation") if index in chosen else row for index, row in enumerate(rows)]


def plan(rows: Sequence[Row], records: int) -> list[Plan]:
    """Plan shards of up to `records` images, in each split in the order of a hash of the images' names."""
    classes = tuple(sorted({row.label for row in rows}))
    plans = []
    for name in SPLITS:
        shuffled = sorted((row for row in rows if row.split == name), key=_hash)
        count = math.ceil(len(shuffled) / records)
        for number in range(count):
            part = shuffled[number * len(shuffled) // count : (number + 1) * len(shuffled) // count]
            plans.append(Plan(f"{name}-{number:05d}-of-{count:05d}.tfrecord.gz", name, classes, tuple(part)))
    return plans


def _hash(row: Row) -> tuple[bytes, str]:
    return blake2b(row.name.encode("utf-8", "surrogateescape"), digest_size=8).digest(), row.name
