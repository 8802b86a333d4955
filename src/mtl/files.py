"""Files written whole or not at all, and as the same bytes every time."""

from __future__ import annotations

import csv
import glob
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from mtl.errors import UserError, describe_os_error, one_line

if TYPE_CHECKING:
    import pyarrow as pa


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` and rename it to `path` at the end: no reader sees half a file.

    Raises UserError where the system refuses to write (a full disk, no rights).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_residue(path.parent, path.name)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {describe_os_error(error)}; make room or give access there") from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_residue(folder: Path, name: str = "") -> None:
    """Remove what killed processes left of files they were writing in `folder`: of one called `name`, or of any."""

    for left in folder.glob(f".{glob.escape(name) or '*'}.*.tmp"):
        pid = left.name.split(".")[-2]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            left.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` as a whole."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """Write JSON with sorted keys; NaN is refused with ValueError."""
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_bytes(path, f"{text}\n".encode())


def read_json(path: Path) -> Any:
    """Read JSON; raises UserError where the file is missing or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run `dvc repro`, or `dvc checkout` if it ran before") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); remove it and run `dvc repro`") from None


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of the same keys as CSV, the keys as the header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def write_array(path: Path, array: np.ndarray) -> None:
    """Write a `.npy` file, as `np.save` does."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def read_array(path: Path) -> np.ndarray:
    """Read a `.npy` file; objects are never unpickled. Raises UserError where it is missing or broken."""
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run `dvc repro`, or `dvc checkout` if it ran before") from None
    except (ValueError, EOFError) as error:
        raise UserError(f"{path}: not a NumPy array ({error}); `dvc checkout` brings it back") from None


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table as Parquet, without its metadata, so that the same rows are the same bytes."""
    import pyarrow.parquet as pq

    with replacing(path) as temporary:
        pq.write_table(table.replace_schema_metadata(None), temporary, compression="zstd", store_schema=False)


def read_parquet(path: Path) -> pa.Table:
    """Read a Parquet file; raises UserError where it is missing or broken."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path, memory_map=True)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run `dvc repro`, or `dvc checkout` if it ran before") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(
            f"{path}: not a whole Parquet file ({one_line(error)}); `dvc checkout` brings it back"
        ) from None


def md5(path: Path) -> str:
    """The MD5 of a file's content, by which DVC knows it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
