"""The images to convert, rows of a table or of a tree of class folders, and the plan of the shards they go to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import PurePosixPath

from mtl.config import addresses
from mtl.config.params import ColumnType
from mtl.data import remote
from mtl.errors import UserError, one_line
from mtl.records.encoding import RESERVED, Value
from mtl.sources import kinds, split, tables, trees
from mtl.sources.loaded import CLASS
from mtl.tasks import columns
from mtl.tasks.columns import SPLITS, Split
from mtl.tasks.grouping import check_class_count


@dataclass(frozen=True)
class Row:
    """One image: its split, its name in the input, its path or URI, and its value in each column; None is a gap."""

    split: Split
    name: str
    uri: str
    values: Sequence[Value]


@dataclass(frozen=True)
class Rows:
    """The images to convert, and the type of each column of theirs."""

    columns: Mapping[str, ColumnType]
    rows: Sequence[Row]


@dataclass(frozen=True)
class Plan:
    """The file of a shard and the rows that go into it."""

    file: str
    split: Split
    columns: Mapping[str, ColumnType]
    rows: Sequence[Row]


def read(
    source: str, image: str | None = None, missing: Sequence[str] = ("",), types: Mapping[str, ColumnType] | None = None
) -> Rows:
    """Read the rows of a table, CSV or Parquet, or of a folder of <split>/<class>/<file>.

    Args:
        source: path or URI.
        image: the column of a table with the paths or URIs of the images; None: by its name.
        missing: what stands for a gap in a table.
        types: of columns of a table, where the inferred one is not right.

    Raises UserError where there are none, where one is invalid, or where a folder has only one class.
    """
    refuse_secret(source)
    if not remote.exists(source):
        raise UserError(f"{source}: no such file or folder; give a table (.csv or .parquet), or a folder of images")
    if source.lower().endswith(tables.SUFFIXES):
        return _from_table(source, image, missing, types or {})
    return _from_tree(source)


def refuse_secret(address: str, prefix: str = "") -> None:
    """Raise UserError, whose message begins with `prefix`, where an address, which shards contain, has a password."""
    if fault := addresses.fault(address):
        raise UserError(f"{prefix}{fault}")


def _from_table(source: str, image: str | None, missing: Sequence[str], types: Mapping[str, ColumnType]) -> Rows:
    """Read a row from each row of a table."""
    try:
        content = remote.read(source)
    except OSError as error:
        raise UserError(f"{source}: cannot be read: {one_line(error)}") from None
    table = tables.read(content, source, image, tuple(missing), types)
    if table.splits is None:
        raise UserError(f"{source}: no column `split`; add it, with one of {', '.join(SPLITS).upper()} in each row")
    reserved = [name for name in table.columns.column_names if name in RESERVED]
    if reserved:
        raise UserError(f"{source}: column {reserved[0]!r}: records have a feature of this name already; rename it")
    folder = remote.absolute(source.rpartition("/")[0] if "/" in source else ".")
    values = zip(*(column.to_pylist() for column in table.columns.columns), strict=True)
    rows = []
    for number, (part, name, cells) in enumerate(zip(table.splits, table.files, values, strict=True), 1):
        refuse_secret(name, f"{source}: row {number}: ")
        address = name if remote.is_remote(name) or name.startswith("/") else remote.join(folder, name)
        rows.append(Row(part, name, address, cells))
    return Rows(columns.types(table.columns), rows)


def _from_tree(source: str) -> Rows:
    """Read a row from each image at <split>/<class>/<file>, with or without one folder above the splits."""
    rows: list[Row] = []
    others: list[str] = []
    hidden: dict[str, None] = {}  # a set that keeps the order
    names = trees.Names(source)
    listed = remote.list_files(source)
    if listed == [""]:
        raise UserError(f"{source}: neither a .csv or .parquet file nor a folder; give one of them, archives unpacked")
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
        raise UserError(f"{source}: {kinds.explain_no_images(others, hidden_images, ', or a table')}")
    kinds.report_left_out(source, others, hidden_images)
    check_class_count(source, sorted({str(row.values[0]) for row in rows}))
    return Rows({CLASS: "text"}, rows)


def _tree_row(source: str, path: PurePosixPath, names: trees.Names) -> Row:
    """Make the row of the image at `path` in the tree."""
    if len(path.parts) not in (3, 4) or path.parts[-3].lower() not in SPLITS:
        raise UserError(
            f"{source}: {path} is not at <split>/<class>/<file> with a split of {', '.join(SPLITS)}; move it"
        )
    names.composed(path)
    label = PurePosixPath(names.composed(path.parent)).name
    split: Split = next(split for split in SPLITS if split == path.parts[-3].lower())
    return Row(split, str(path), remote.join(remote.absolute(source), str(path)), (label,))


def name_data_set(source: str) -> str:
    """Return the name of the data set in the file or folder `source`: its own without the suffix of a table."""
    name = source.rstrip("/").rpartition("/")[2] or source
    suffix = next((suffix for suffix in tables.SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)] or "images"


def hold_out(images: Rows, count: int, seed: int, source: str, stratify: str | None = None) -> Rows:
    """Move `count` rows of train to validation, as `load_data` holds images out.

    They are stratified by the column `stratify`: None is `class`, or the only column. Among several they are at random.

    Raises UserError where there is a validation split already, or `count` or `stratify` does not fit.
    """
    names = list(images.columns)
    if stratify is not None and stratify not in names:
        raise UserError(f"{source}: --stratify: no column {stratify!r}; it has {', '.join(names)}")
    if not count:
        return images
    if any(row.split == "validation" for row in images.rows):
        raise UserError(f"{source}: has a split VALIDATION already; leave --validation out")
    column = stratify or (names[0] if len(names) == 1 else CLASS)
    place = names.index(column) if column in names else None
    train = [index for index, row in enumerate(images.rows) if row.split == "train"]
    values = ["" if place is None else repr(images.rows[index].values[place]) for index in train]
    chosen = {train[position] for position in split.hold_out(values, count, seed, f"{source}: --validation:")}
    rows = [replace(row, split="validation") if index in chosen else row for index, row in enumerate(images.rows)]
    return Rows(images.columns, rows)


def plan(images: Rows, records: int, keep_order: bool = False) -> list[Plan]:
    """Plan shards of up to `records` images, in each split in the order of a hash of their names, or of `images`."""
    plans = []
    for name in SPLITS:
        rows = [row for row in images.rows if row.split == name]
        if not keep_order:
            rows.sort(key=_hash)
        count = math.ceil(len(rows) / records)
        for number in range(count):
            part = rows[number * len(rows) // count : (number + 1) * len(rows) // count]
            plans.append(Plan(f"{name}-{number:05d}-of-{count:05d}.tfrecord.gz", name, images.columns, part))
    return plans


def _hash(row: Row) -> tuple[bytes, str]:
    return blake2b(row.name.encode("utf-8", "surrogateescape"), digest_size=8).digest(), row.name
