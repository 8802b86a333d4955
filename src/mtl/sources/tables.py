"""Tables: a row per image, in CSV or Parquet, with the path of the image, its split, and any other columns."""

from __future__ import annotations

import csv
import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from mtl.config.params import ColumnType
from mtl.errors import UserError, nearest, one_line
from mtl.sources import kinds
from mtl.tasks.columns import Split

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".csv", ".tsv", ".parquet")
IMAGE = ("image", "image_uri", "imagegcsuri", "image_path", "file", "file_name", "filename", "filepath", "path", "uri")
SPLIT = ("split", "ml_use")
SPLIT_WORDS: Mapping[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
DELIMITERS = ",;\t"
SHOWN = 200  # characters of what the parser says

Missing = Sequence[str] | Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Table:
    """The rows of a table, without repeated ones.

    Attributes:
        image: the name of the column with the images.
        files: the path of each row's image, without `./` and `//`, or its URI.
        splits: the split of each row; None where the table has no such column.
        columns: all other columns: text, integers, numbers or booleans, a gap is null.
    """

    image: str
    files: tuple[str, ...]
    splits: tuple[Split, ...] | None
    columns: pa.Table


def read(
    content: bytes,
    name: str,
    image: str | None = None,
    missing: Missing = ("",),
    types: Mapping[str, ColumnType] | None = None,
) -> Table:
    """Read a CSV file (UTF-8, cells between commas, semicolons or tabs) or a Parquet file.

    Args:
        content: the file.
        name: what it is called; `.parquet` at its end tells its format.
        image: the column with the paths of the images; None: the first whose name, in any case, is in IMAGE.
        missing: what stands for a gap, in all columns or by column.
        types: of columns, where the inferred ones are not right.

    Raises:
        UserError: in one line, whatever is wrong with it.
    """
    text = _from_parquet(content, name) if name.lower().endswith(".parquet") else _from_csv(content, name)
    if repeated := sorted({column for column in text.column_names if text.column_names.count(column) > 1}):
        raise UserError(f"{name}: several columns are called {repeated[0]!r}; rename all but one")
    if not text.num_rows:
        raise UserError(f"{name}: no rows, only the names of the columns")
    image = _image_column(name, text.column_names, image)
    split = next((column for column in text.column_names if column.strip().lower() in SPLIT), None)
    for column in (*(types or {}), *(missing if isinstance(missing, Mapping) else ())):
        check_column(name, text.column_names, column)
    others = [column for column in text.column_names if column not in (image, split)]
    if not others:
        raise UserError(f"{name}: no column but the image's and the split; add one, which a task can ask about")
    columns = {
        column: _typed(
            _with_gaps(text[column], missing.get(column, ("",)) if isinstance(missing, Mapping) else missing),
            f"{name}: column {column!r}",
            (types or {}).get(column),
        )
        for column in others
    }
    return _distinct(name, image, _paths(text[image]), None if split is None else text[split], split or "", columns)


def _paths(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The paths in one spelling each, so that one image is not two; URIs and gaps as they are."""
    import pyarrow as pa

    paths = column.cast(pa.string()).to_pylist()
    plain = [path if not path or "://" in path else str(PurePosixPath(path)) for path in paths]
    return pa.chunked_array([plain], pa.string())


def check_column(name: str, available: Sequence[str], column: str) -> None:
    """Raise UserError, which names the nearest one, where a table does not have a column."""
    if column not in available:
        raise UserError(
            f"{name}: no column {column!r}; did you mean {nearest(column, available)!r}?"
            f" It has {kinds.first_few(available, 20)}"
        )


def _from_csv(content: bytes, name: str) -> pa.Table:
    """All cells of a CSV file as text without blanks around it, in Unicode's composed form."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv as arrow_csv

    try:
        whole = unicodedata.normalize("NFC", content.decode("utf-8-sig"))
        line = whole.split("\n", 1)[0].rstrip("\r")
        delimiter = max(DELIMITERS, key=re.sub('"[^"]*"', "", line).count)
        names = [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{name}: not a CSV file in UTF-8: {one_line(error)}") from None
    if not names or not all(names):
        raise UserError(f"{name}: the first line must name the columns, and is {line.strip()[:80]!r}")
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(whole.encode()),
            parse_options=arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        raise UserError(f"{name}: not a CSV file in UTF-8: {one_line(error)[:SHOWN]}") from None
    trimmed = [pc.utf8_trim_whitespace(column.cast(pa.string())) for column in table.columns]
    return pa.table(trimmed, names=names)


def _from_parquet(content: bytes, name: str) -> pa.Table:
    """The columns of a Parquet file: booleans, integers and numbers as they are, all else as text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(content))
        columns = [column if _is_plain(column.type) else _composed(column) for column in table.columns]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise UserError(f"{name}: no whole Parquet file of plain columns: {one_line(error)[:SHOWN]}") from None
    return pa.table(columns, names=table.column_names)


def _composed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column as text in Unicode's composed form (Arrow's own function gives the decomposed one)."""
    import pyarrow as pa

    texts = column.cast(pa.string()).to_pylist()
    return pa.chunked_array([[text and unicodedata.normalize("NFC", text) for text in texts]], pa.string())


def _is_plain(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _image_column(name: str, available: Sequence[str], wanted: str | None) -> str:
    if wanted is not None:
        check_column(name, available, wanted)
        return wanted
    by_name = {column.lower(): column for column in reversed(available)}
    known = next((by_name[alias] for alias in IMAGE if alias in by_name), None)
    if known is None:
        raise UserError(
            f"{name}: no column is called {' or '.join(IMAGE[:2])}; it has {kinds.first_few(available, 20)}; name the"
            " one with the paths of the images in data.image"
        )
    return known


def _with_gaps(column: pa.ChunkedArray, missing: Sequence[str]) -> pa.ChunkedArray:
    """The column with null where its value, as text, is one of `missing`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    gaps = pc.is_in(column.cast(pa.string()), pa.array(missing, pa.string()))
    return pc.if_else(gaps, pa.scalar(None, column.type), column)


def _typed(column: pa.ChunkedArray, place: str, wanted: ColumnType | None) -> pa.ChunkedArray:
    """The column as the type `wanted`; None: as the type of its values."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if wanted is None:
        return _inferred(column)
    kinds_of: dict[ColumnType, pa.DataType] = {
        "integer": pa.int64(),
        "number": pa.float64(),
        "boolean": pa.bool_(),
        "text": pa.string(),
    }
    text = column.cast(pa.string())
    try:
        return _without_nan(text.cast(kinds_of[wanted]))
    except pa.ArrowInvalid:
        for row, value in enumerate(text):
            try:
                pc.cast(value, kinds_of[wanted])
            except pa.ArrowInvalid:
                raise UserError(f"{place}, row {row + 1}: {value.as_py()!r} is no {wanted}; see data.types") from None
        raise


def _inferred(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column as integers, numbers or booleans where all its values are; else, and where nothing is known, text.

    Codes of digits stay text: as numbers, those that begin with 0 (007, 0x1F) would lose it, and integers beyond
    64 bits their last digits, by which two of them may differ.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.null_count == len(column) or pa.types.is_boolean(column.type):
        return column
    if column.type == pa.float64():
        return _without_nan(column)
    # The float32 0.1 becomes the float64 that is written 0.1 too, as TFRecords and labels have it.
    text = column.cast(pa.string())
    if pa.types.is_floating(column.type):
        return _without_nan(text.cast(pa.float64()))
    if pc.any(pc.match_substring_regex(text, "^[+-]?0[0-9xX]")).as_py():
        return text
    integers = pc.all(pc.match_substring_regex(text, "^-?[0-9]+$")).as_py()
    try:
        return _without_nan(text.cast(pa.int64() if integers else pa.float64()))
    except pa.ArrowInvalid:
        pass
    # Arrow takes 0 and 1 for booleans too, but beside true and false they make a column of mixed types.
    lower = pc.unique(pc.utf8_lower(text)).to_pylist()
    return text.cast(pa.bool_()) if {*lower} <= {"true", "false", None} else text


def _without_nan(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column with gaps for what is no number, which no label can be and which differs from itself."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_floating(column.type):
        return column
    return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)


def _distinct(
    name: str, image: str, files: pa.ChunkedArray, words: pa.ChunkedArray | None, split: str, columns: dict
) -> Table:
    """The table without repeated rows. Raises UserError where an image is listed with other values again."""
    import pyarrow as pa

    paths, first, kept = files.cast(pa.string()).to_pylist(), dict[str, int](), []
    splits = None if words is None else _splits(name, split, words)
    rows = list(zip(paths, *(column.to_pylist() for column in columns.values()), strict=True))
    seen: set[tuple[str, Split | None]] = set()  # in two splits an image is a duplicate, of which others speak
    for row, path in enumerate(paths):
        if not path or any(unicodedata.category(character) == "Cc" for character in path):
            raise UserError(f"{name}: column {image!r}, row {row + 1}: {path!r} is no path of an image")
        before = first.setdefault(path, row)
        if rows[before] != rows[row]:
            raise UserError(
                f"{name}: {path} is in row {before + 1} and, with other values, in row {row + 1}; leave one of them"
            )
        if (key := (path, splits[row] if splits else None)) not in seen:
            seen.add(key)
            kept.append(row)
    if repeated := len(paths) - len(kept):
        print(f"{name}: {repeated:,} rows are there again, and are read once", file=sys.stderr)
    return Table(
        image,
        tuple(paths[row] for row in kept),
        None if splits is None else tuple(splits[row] for row in kept),
        pa.table(columns).take(kept),
    )


def _splits(name: str, column: str, words: pa.ChunkedArray) -> list[Split]:
    import pyarrow as pa

    splits = []
    for row, word in enumerate(words.cast(pa.string()).to_pylist()):
        split = SPLIT_WORDS.get((word or "").strip().lower())
        if split is None:
            raise UserError(
                f"{name}: column {column!r}, row {row + 1}: unknown split {word!r}; use train, validation or test"
            )
        splits.append(split)
    return splits
