"""Text in columns, for terminals and pipes alike."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[str] = ()) -> str:
    """Lines of text with the columns of `header`; those named in `numbers` are aligned to the right."""
    columns = []
    for column in zip(header, *rows, strict=True):
        width = max(map(len, column))
        columns.append([text.rjust(width) if column[0] in numbers else text.ljust(width) for text in column])
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns, strict=True))
