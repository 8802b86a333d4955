"""The Beam pipeline of `mtl convert`: plans of shards -> shards and their summaries -> the manifest."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import re
import tempfile
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict
from typing import IO, Any

import numpy as np

from mtl.data import backend, remote
from mtl.data.shards import MANIFEST, VERSION, Column, Discarded, Duplicates, Manifest, Shard, SplitRecords
from mtl.errors import UserError, describe_os_error, one_line
from mtl.records import encoding, output
from mtl.records.rows import Plan, Row
from mtl.sources import decoding, duplicates
from mtl.tasks.columns import SPLITS

INSTALL = "`make beam`, or `pip install --no-deps -r requirements-beam.txt`"
PLANS = ".plans"
LOG_LINES = 5_000  # last lines of Beam, which are saved if it fails
READERS = 16  # images of a shard that are downloaded at a time


def run(plans: Sequence[Plan], name: str, folder: str, flags: Sequence[str]) -> None:
    """Write the shards of `plans` and their manifest to `folder`, a path or URI, by Beam with its own `flags`.

    Files that earlier conversions left there are removed first, so that files of two conversions never mix.

    Raises UserError where Beam is not installed, does not know a flag, or fails, and where no image could be read.
    """
    folder = remote.absolute(folder)
    with _quiet(flags) as log:
        try:
            import apache_beam as beam
            import google_crc32c  # noqa: F401
        except ImportError as error:
            raise UserError(f"mtl convert needs Apache Beam ({one_line(error)}): {INSTALL}") from None
        options = _options(flags)
        plans_folder = remote.join(folder, PLANS)
        output.clear(folder)
        try:
            # Beam gets the names of files, so that the job stays small, however many images there are.
            names = [_write_json(remote.join(plans_folder, f"{plan.file}.json"), asdict(plan)) for plan in plans]
            with beam.Pipeline(options=options) as pipeline:
                (
                    pipeline
                    | "plans" >> beam.Create(names)
                    | "spread" >> beam.Reshuffle()
                    | "shards" >> beam.Map(write_shard, folder)
                    | "all" >> beam.combiners.ToList()
                    | "manifest" >> beam.Map(write_manifest, name, folder)
                )
        except UserError:
            raise
        except OSError as error:
            raise UserError(f"{folder}: the conversion failed: {describe_os_error(error)}") from error
        except Exception as error:  # Beam wraps the errors of its workers
            raise UserError(f"{folder}: the conversion failed: {_cause(error)}{_save_log(log)}") from error
        finally:
            remote.remove(plans_folder)
    if not remote.exists(remote.join(folder, MANIFEST)):
        raise UserError(f"{folder}: none of the images could be read; see {remote.join(folder, 'discarded-*.csv')}")


@contextmanager
def _quiet(flags: Sequence[str]) -> Iterator[deque[bytes]]:
    """Redirect stderr, to which Beam and its workers write, into the lines that are yielded; only the last are kept.

    With a runner elsewhere, stderr stays as it is: it shows the address of the job.
    """
    lines: deque[bytes] = deque(maxlen=LOG_LINES)
    runner = re.search(r"--runner[= ](\S+)", " ".join(flags))
    if runner and "direct" not in runner[1].lower():
        yield lines
        return
    reading, writing = os.pipe()  # not a file, which would fail on a full disk
    thread = threading.Thread(target=lambda: lines.extend(os.fdopen(reading, "rb")), daemon=True)
    thread.start()
    try:
        with backend.stderr_to(writing):
            yield lines
    finally:
        os.close(writing)


def _save_log(lines: Sequence[bytes]) -> str:
    """Save lines of Beam and return the end of an error that names their file; empty without lines or if that fails."""
    if not lines:
        return ""
    try:
        with tempfile.NamedTemporaryFile("wb", prefix="mtl-convert-", suffix=".log", delete=False) as file:
            file.writelines(list(lines))
    except OSError:
        return ""
    return f"; all that Beam said: {file.name}"


def _cause(error: Exception) -> str:
    """Return the last line of an error of a worker as Beam wraps it, which is the message of the original."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1][:300]


def _options(flags: Sequence[str]) -> Any:
    from apache_beam.options.pipeline_options import PipelineOptions

    if not any(flag.startswith(("--runner", "--direct_")) for flag in flags):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        flags = [*flags, "--direct_running_mode=multi_processing", f"--direct_num_workers={cores}"]
    stderr = io.StringIO()
    try:
        with redirect_stderr(stderr):
            options = PipelineOptions(list(flags))
            unknown = set(options.get_all_options(retain_unknown_options=True)) - set(options.get_all_options())
    except SystemExit:  # raised by argparse, whose last line holds the reason
        reason = stderr.getvalue().strip().rpartition("error: ")[2]
        raise UserError(f"Beam does not take {' '.join(flags)}: {reason}") from None
    if unknown:
        raise UserError(f"--{sorted(unknown)[0]}: neither a flag of `mtl convert` nor of Beam; see `mtl convert -h`")
    return options


def _write_json(path: str, content: Any) -> str:
    with remote.write(path) as file:
        file.write(json.dumps(content, indent=2, ensure_ascii=False).encode())
    return path


class _Hashed:
    """A file opened for writing, with the size and sha256 of the bytes written so far."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.size, self.digest, self.flush = file, 0, hashlib.sha256(), file.flush

    def write(self, data: bytes) -> int:
        self.size += len(data)
        self.digest.update(data)
        return self.file.write(data)


def write_shard(plan: str, folder: str) -> dict[str, Any]:
    """Write the shard of the plan in the file `plan`, always as the same bytes, and return its summary in JSON's types.

    Images that cannot be read are listed in a CSV file beside it.
    """
    content = json.loads(remote.read(plan))
    rows = [Row(**row) for row in content["rows"]]
    types = content["columns"]
    known: Counter[str] = Counter()
    encodings: set[str] = set()
    heights: list[int] = []
    widths: list[int] = []
    discarded: list[tuple[str, str]] = []  # URI and reason
    digests: list[int | None] = []  # of each row
    with remote.write(remote.join(folder, content["file"])) as raw:
        hashed = _Hashed(raw)
        # Level 1, as images are compressed already.
        with gzip.GzipFile("", "wb", 1, hashed, mtime=0) as shard, decoding.no_bombs():
            for row, data in _read_all(rows):
                try:
                    if isinstance(data, Exception):
                        raise UserError(f"{row.uri}: cannot be read: {one_line(data)}")
                    image = encoding.prepare(data, row.uri)
                except UserError as error:
                    discarded.append((row.uri, str(error).removeprefix(f"{row.uri}: ")))
                    digests.append(None)
                    continue
                shard.write(encoding.frame(encoding.serialize(image, row.name, row.split, types, row.values)))
                known.update(name for name, value in zip(types, row.values, strict=True) if value is not None)
                digests.append(image.digest)
                encodings.add(image.encoding)
                heights.append(image.height)
                widths.append(image.width)
    if discarded:
        name = "discarded-" + content["file"].replace(".tfrecord.gz", ".csv")
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("image_uri", "reason"), *discarded])
        with remote.write(remote.join(folder, name)) as file:
            file.write(text.getvalue().encode("utf-8", "surrogateescape"))
    return {
        "split": content["split"],
        "columns": types,
        "shard": Shard(
            file=content["file"], records=len(heights), bytes=hashed.size, sha256=hashed.digest.hexdigest()
        ).model_dump(),
        "known": dict(known),
        "digests": digests,
        "encodings": sorted(encodings),
        "sizes": (min(heights), max(heights), min(widths), max(widths)) if heights else None,
        "discarded": (name, dict(Counter(reason.partition(" (")[0].partition(":")[0] for *_, reason in discarded)))
        if discarded
        else None,
    }


def _read_all(rows: Sequence[Row]) -> Iterator[tuple[Row, bytes | Exception]]:
    """Yield each row, in order, with its file or the error of reading it. Files behind URIs are read in parallel."""
    if not any(remote.is_remote(row.uri) for row in rows):
        yield from ((row, _read(row)) for row in rows)
        return
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(rows), READERS):
            part = rows[start : start + READERS]
            yield from zip(part, pool.map(_read, part), strict=True)


def _read(row: Row) -> bytes | Exception:
    try:
        return remote.read(row.uri)
    except Exception as error:  # each file system of fsspec raises its own
        return error


def write_manifest(summaries: list[dict[str, Any]], name: str, folder: str) -> None:
    """Write the manifest from the summaries of the shards; none where no image could be read."""
    summaries = sorted(summaries, key=lambda summary: summary["shard"]["file"])
    sizes = [summary["sizes"] for summary in summaries if summary["sizes"]]
    if not sizes:
        return
    encodings = sorted({encoding for summary in summaries for encoding in summary["encodings"]})
    low, high, narrow, wide = zip(*sizes, strict=True)
    splits = {}
    for split in dict.fromkeys(summary["split"] for summary in summaries):
        parts = [summary for summary in summaries if summary["split"] == split]
        known: Counter[str] = sum((Counter(part["known"]) for part in parts), Counter())
        shards = tuple(Shard(**part["shard"]) for part in parts)
        splits[split] = SplitRecords(shards=shards, known={column: known[column] for column in parts[0]["columns"]})
    discarded = [summary["discarded"] for summary in summaries if summary["discarded"]]
    reasons: Counter[str] = sum((Counter(counts) for _, counts in discarded), Counter())
    manifest = Manifest(
        name=name,
        columns=tuple(Column(name=column, type=kind) for column, kind in summaries[0]["columns"].items()),
        encoding=encodings[0] if len(encodings) == 1 else "mixed",
        height=(min(low), max(high)),
        width=(min(narrow), max(wide)),
        splits=splits,
        discarded=Discarded(
            count=reasons.total(), files=tuple(file for file, _ in discarded), reasons=dict(sorted(reasons.items()))
        ),
        duplicates=_find_duplicates(summaries, folder),
    )
    _write_json(remote.join(folder, MANIFEST), manifest.model_dump(exclude_defaults=True) | {"version": VERSION})


def _find_duplicates(summaries: Sequence[dict[str, Any]], folder: str) -> Duplicates:
    """Find the images of the same pixels, those of train first. Only plans of shards with such images are read."""
    order = sorted(summaries, key=lambda summary: SPLITS.index(summary["split"]))
    places = [
        (shard, row)
        for shard, part in enumerate(order)
        for row, digest in enumerate(part["digests"])
        if digest is not None
    ]
    digests = np.array([order[shard]["digests"][row] for shard, row in places], np.uint64)
    _, group, sizes = np.unique(digests, return_inverse=True, return_counts=True)
    repeated = np.flatnonzero(sizes[group] > 1)
    used = [places[index] for index in repeated]
    plans = {shard: _read_plan(folder, order[shard]["shard"]["file"]) for shard in {shard for shard, _ in used}}
    rows = [plans[shard]["rows"][row] for shard, row in used]
    splits = np.array([SPLITS.index(row["split"]) for row in rows], int)
    columns = {name: [row["values"][place] for row in rows] for place, name in enumerate(summaries[0]["columns"])}
    return duplicates.find(digests[repeated], splits, columns, lambda index: rows[index]["name"])


def _read_plan(folder: str, file: str) -> dict[str, Any]:
    return json.loads(remote.read(remote.join(remote.join(folder, PLANS), f"{file}.json")))
