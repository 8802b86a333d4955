"""Which images there are: rows of a CSV or of a tree of class folders, and the shards they go to."""

from __future__ import annotations

import csv
import io
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import PurePosixPath

import numpy as np

from mtl.config import addresses
from mtl.data.shards import SPLITS
from mtl.errors import UserError, one_line
from mtl.records import files
from mtl.sources import kinds, split, trees
from mtl.sources.images import check_count

COLUMNS = ("split", "image_uri", "label")


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
    rows = _from_csv(source) if source.lower().endswith(".csv") else _from_tree(source)
    check_count(source, sorted({row.label for row in rows}))
    return rows


def refuse_secret(address: str, where: str = "") -> None:
    """Raise UserError, beginning with `where`, where an address has a password in it: shards hold the addresses."""
    if fault := addresses.fault(address):
        raise UserError(f"{where}{fault}")


def _from_csv(source: str) -> list[Row]:
    """A row for each line; says on stderr which columns are left out, and what is there twice."""
    rows: dict[Row, int] = {}  # with the line each is in
    twice = []
    listed = []
    try:
        lines = csv.reader(io.StringIO(files.read(source).decode("utf-8-sig"), newline=""))
        header = next(lines, [])
        places = _columns(source, header)
        for cells in filter(None, lines):
            where = f"{source}: line {lines.line_num}"
            if any(cells[len(header) :]):
                raise UserError(
                    f"{where}: {len(cells)} cells for {len(header)} columns; write a text with commas in quotes"
                )
            listed.append(_row(source, where, [cells[place] if place < len(cells) else "" for place in places]))
            first = rows.setdefault(listed[-1], lines.line_num)
            if first != lines.line_num:
                twice.append(f"line {lines.line_num} is line {first}")
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{source}: not a CSV file in UTF-8: {one_line(error)}") from None
    if not listed:
        raise UserError(f"{source}: no images in it, only the names of the columns")
    if twice:
        _say(f"{source}: {len(twice):,} rows are there again: {kinds.some(twice)}")
    return listed


def _columns(source: str, header: Sequence[str]) -> list[int]:
    """Where each of COLUMNS is; its name may be in any case, and of two the last is read."""
    named = [cell.strip().lower() for cell in header]
    missing = [name for name in COLUMNS if name not in named]
    if missing:
        raise UserError(
            f"{source}: no column {missing[0]!r}; the first line must be {','.join(COLUMNS)}, and is"
            f" {kinds.some(header, 9) or 'empty'}"
        )
    other = [cell for cell, name in zip(header, named, strict=True) if name not in COLUMNS]
    if other:
        _say(f"{source}: left out {len(other):,} columns: {kinds.some(other)}")
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        _say(f"{source}: {len(twice):,} columns are there again, of which the last is read: {kinds.some(twice)}")
    return [len(named) - 1 - named[::-1].index(name) for name in COLUMNS]


def _row(source: str, where: str, cells: Sequence[str]) -> Row:
    given, uri, label = (cell.strip() for cell in cells)
    if given.lower() not in SPLITS:
        raise UserError(f"{where}: split {given!r}: unknown; use one of {', '.join(SPLITS).upper()}")
    if not uri or not label.isprintable() or not label:
        raise UserError(f"{where}: {'label' if uri else 'image_uri'} is empty or no text")
    refuse_secret(uri, f"{where}: ")
    inside = files.is_remote(uri) or uri.startswith("/")
    folder = source.rpartition("/")[0] if "/" in source else "."
    place = uri if inside else files.join(files.absolute(folder), uri)
    return Row(given.lower(), uri, place, unicodedata.normalize("NFC", label))


def _from_tree(source: str) -> list[Row]:
    """An image's split and class are the two folders it is in; one folder above the splits is passed over."""
    rows, others, hidden = [], [], {}
    names = trees.Names(source)
    listed = files.listing(source)
    if listed == [""]:
        raise UserError(f"{source}: neither a .csv file nor a folder; give one of them, an archive unpacked")
    for name in listed:
        place = PurePosixPath(name)
        junk = next((number for number, part in enumerate(place.parts, 1) if trees.is_junk(part)), 0)
        if junk:
            hidden["/".join(place.parts[:junk]) + "/" * (junk < len(place.parts))] = True
        elif not name.lower().endswith(kinds.SUFFIXES):
            others += [] if trees.is_readme(name) else [name]
        else:
            rows.append(_placed(source, place, names))
    unseen = kinds.hidden(hidden, SPLITS)
    if not rows:
        raise UserError(f"{source}: {kinds.no_images(others, unseen, ', or a CSV')}")
    kinds.say_left_out(source, others, unseen)
    return rows


def _placed(source: str, place: PurePosixPath, names: trees.Names) -> Row:
    """The row of the image at `place` in the tree."""
    if len(place.parts) not in (3, 4) or place.parts[-3].lower() not in SPLITS:
        raise UserError(
            f"{source}: {place} is not at <split>/<class>/<file> with a split of {', '.join(SPLITS)}; move it"
        )
    names.composed(place)
    label = PurePosixPath(names.composed(place.parent)).name
    return Row(place.parts[-3].lower(), str(place), files.join(files.absolute(source), str(place)), label)


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def hold_out(rows: list[Row], count: int, seed: int, source: str) -> list[Row]:
    """`rows` with `count` of those of train as validation, stratified by label, as `load_data` holds out."""
    if not count:
        return rows
    if any(row.split == "validation" for row in rows):
        raise UserError(f"{source}: has a split VALIDATION already; leave --validation out")
    train = [index for index, row in enumerate(rows) if row.split == "train"]
    names = sorted({row.label for row in rows})
    labels = np.array([[names.index(rows[index].label)] for index in train], np.uint8)
    chosen = {train[place] for place in split.hold_out(labels, count, seed, f"{source}: --validation:")}
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
