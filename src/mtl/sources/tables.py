"""Tables with a row per image: CSV or Parquet."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mtl.config.params import ColumnType
from mtl.errors import UserError, one_line
from mtl.tasks.columns import Split

if TYPE_CHECKING:
    import pyarrow as pa

_IMAGE = ("image_uri", "image", "path", "file", "filename", "image_path", "file_name", "uri")
_SPLIT = ("split", "ml_use")
_SPLITS: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "validate", "val"), "validation"),
    "test": "test",
}


@dataclass(frozen=True)
class Table:
    """The image path of each row, its split (None where there is no such column), and all other columns, typed."""

    files: list[str]
    splits: list[Split] | None
    columns: pa.Table


def read(
    content: bytes | Path,
    name: str,
    image: str | None = None,
    missing: Sequence[str] = ("",),
    types: Mapping[str, ColumnType] | None = None,
) -> Table:
    """Read a table; raises UserError, which begins with `name`, where it cannot be read."""
    import pyarrow as pa
    from pyarrow import csv, parquet

    data = content.read_bytes() if isinstance(content, Path) else content
    arrow = {"text": pa.string(), "integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}
    try:
        if name.lower().endswith(".parquet"):
            table = parquet.read_table(pa.BufferReader(data))
        else:
            head = data.split(b"\n", 1)[0]
            delimiter = max(",;\t", key=lambda mark: head.count(mark.encode()))
            kinds = {column: arrow[kind] for column, kind in (types or {}).items()}
            options = csv.ConvertOptions(column_types=kinds, null_values=list(missing), strings_can_be_null=True)
            parse = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
            table = csv.read_csv(pa.BufferReader(data), parse_options=parse, convert_options=options)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
        raise UserError(f"{name}: cannot be read: {one_line(error)}") from None
    names = {column.strip().lower(): column for column in table.column_names}
    found = image or next((names[key] for key in _IMAGE if key in names), None)
    if found not in table.column_names:
        raise UserError(f"{name}: no column of images; it has {', '.join(table.column_names)}")
    if len({column.strip().lower() for column in table.column_names}) < table.num_columns:
        raise UserError(f"{name}: a column is there twice: {', '.join(table.column_names)}")
    files = [str(value or "").strip() for value in table[found].to_pylist()]
    if "" in files:
        raise UserError(f"{name}: row {files.index('') + 1}: no path in the column {found!r}")
    if not files:
        raise UserError(f"{name}: no images in it, only the names of the columns")
    split = next((names[key] for key in _SPLIT if key in names), None)
    splits = None
    if split is not None:
        values = [str(value).strip() for value in table[split].to_pylist()]
        unknown = [value for value in values if value.lower() not in _SPLITS]
        if unknown:
            raise UserError(f"{name}: split {unknown[0]!r}: unknown; use one of TRAIN, VALIDATION, TEST")
        splits = [_SPLITS[value.lower()] for value in values]
    rest = table.drop_columns([column for column in (found, split) if column])
    fields = [pa.field(f.name, pa.string() if pa.types.is_null(f.type) else f.type) for f in rest.schema]
    rest = rest.cast(pa.schema(fields))
    for index, field in enumerate(fields):
        if pa.types.is_string(field.type):
            texts = (text and unicodedata.normalize("NFC", text) for text in rest[field.name].to_pylist())
            rest = rest.set_column(index, field, pa.array(texts, pa.string()))
    return Table(files, splits, rest)
