"""Columns of a data set: tables with a row per example, by split, and the values in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from mtl.config.params import ColumnType

if TYPE_CHECKING:
    import pyarrow as pa

Split = Literal["train", "validation", "test", "shifted"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")  # of every data set; `shifted` is a second test set
SPLIT = "split"  # the first column of the joined table


def join(tables: Mapping[Split, pa.Table]) -> pa.Table:
    """Join the tables of all splits in their order, the name of the split as the first column."""
    import pyarrow as pa

    parts = [
        tables[split].add_column(0, SPLIT, pa.array([split] * tables[split].num_rows, pa.string())) for split in SPLITS
    ]
    return pa.concat_tables(parts).combine_chunks()


def of_split(table: pa.Table, split: Split) -> pa.Table:
    """The rows of one split of a joined table, without the column `split`."""
    import pyarrow.compute as pc

    return table.filter(pc.field(SPLIT) == split).drop_columns(SPLIT)


def types(table: pa.Table) -> dict[str, ColumnType]:
    """The type of each column but `split`: text, integer, number or boolean."""
    return {field.name: _type(field.type) for field in table.schema if field.name != SPLIT}


def _type(kind: pa.DataType) -> ColumnType:
    import pyarrow as pa

    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind):
        return "integer"
    return "number" if pa.types.is_floating(kind) else "text"


def names(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The values of a column as text, by which groups in params.yaml name them; a gap stays null."""
    import pyarrow as pa

    return column.cast(pa.string())


def distinct(column: pa.ChunkedArray) -> list[str]:
    """The distinct values of a column as text, gaps left out: numbers by their size, text by its characters."""
    import pyarrow.compute as pc

    values = pc.drop_null(pc.unique(column))
    return names(values.take(pc.array_sort_indices(values))).to_pylist()


def describe(table: pa.Table) -> list[str]:
    """Describe each example by the values of its columns, of several with their names, N lines; a gap is left out."""
    several = table.num_columns > 1
    return [
        ", ".join(f"{name} {value}" if several else str(value) for name, value in row.items() if value is not None)
        for row in table.to_pylist()
    ]
