"""The Beam pipeline of `mtl convert`: a plan per shard -> the shard -> what is in it -> the manifest."""

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

from mtl.data import backend
from mtl.data.shards import SPLITS, Discarded, Duplicates, Manifest, Shard, SplitRecords
from mtl.errors import UserError, describe_os_error, one_line
from mtl.records import encoding, files
from mtl.records.rows import Plan, Row
from mtl.sources import decoding, duplicates

INSTALL = "`make beam`, or `pip install --no-deps -r requirements-beam.txt`"
PLANS = ".plans"
SAID = 5_000  # lines of Beam that are kept for the case that it fails
READERS = 16  # images of a shard that are fetched at once where they are behind a URI


def run(plans: Sequence[Plan], name: str, output: str, flags: Sequence[str]) -> None:
    """Write the shards of `plans` and their manifest into the folder `output`, by Beam with its own `flags`.

    What earlier conversions left there is removed first, so that nothing is of two of them.

    Raises UserError where Beam is not installed, does not know a flag, or fails, and where no image could be read.
    """
    output = files.absolute(output)
    with _quiet(flags) as said:
        try:
            import apache_beam as beam
            import google_crc32c  # noqa: F401
        except ImportError as error:
            raise UserError(f"mtl convert needs Apache Beam ({one_line(error)}): {INSTALL}") from None
        options = _options(flags)
        folder = files.join(output, PLANS)
        files.clear(output)
        try:
            # By name, not by value: what a runner is told stays small, however many images there are.
            names = [_write_json(files.join(folder, f"{plan.file}.json"), asdict(plan)) for plan in plans]
            with beam.Pipeline(options=options) as pipeline:
                (
                    pipeline
                    | "plans" >> beam.Create(names)
                    | "spread" >> beam.Reshuffle()
                    | "shards" >> beam.Map(convert, output)
                    | "all" >> beam.combiners.ToList()
                    | "manifest" >> beam.Map(write_manifest, name, output)
                )
        except UserError:
            raise
        except OSError as error:
            raise UserError(f"{output}: the conversion failed: {describe_os_error(error)}") from error
        except Exception as error:  # Beam wraps what a worker raised; the last line says it
            raise UserError(f"{output}: the conversion failed: {_cause(error)}{_kept(said)}") from error
        finally:
            files.remove(folder)
    if not files.exists(files.join(output, files.MANIFEST)):
        raise UserError(f"{output}: none of the images could be read; see {files.join(output, 'discarded-*.csv')}")


@contextmanager
def _quiet(flags: Sequence[str]) -> Iterator[deque[bytes]]:
    """Yield the last lines of what Beam and its workers say here, which thereby stays off the terminal.

    What is said of a job elsewhere, such as where it is shown, stays on stderr.
    """
    said: deque[bytes] = deque(maxlen=SAID)
    runner = re.search(r"--runner[= ](\S+)", " ".join(flags))
    if runner and "direct" not in runner[1].lower():
        yield said
        return
    reading, writing = os.pipe()  # no file, so that a full disk is no second fault
    thread = threading.Thread(target=lambda: said.extend(os.fdopen(reading, "rb")), daemon=True)
    thread.start()
    try:
        with backend.stderr_to(writing):
            yield said
    finally:
        os.close(writing)


def _kept(said: Sequence[bytes]) -> str:
    """Where the lines `said` are kept, as the end of an error; nothing where there are none or they cannot be."""
    if not said:
        return ""
    try:
        with tempfile.NamedTemporaryFile("wb", prefix="mtl-convert-", suffix=".log", delete=False) as file:
            file.writelines(list(said))
    except OSError:
        return ""
    return f"; all that Beam said: {file.name}"


def _cause(error: Exception) -> str:
    """The last line of what a worker said of an exception, which Beam wraps."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1][:300]


def _options(flags: Sequence[str]) -> Any:
    from apache_beam.options.pipeline_options import PipelineOptions

    if not any(flag.startswith(("--runner", "--direct_")) for flag in flags):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        flags = [*flags, "--direct_running_mode=multi_processing", f"--direct_num_workers={cores}"]
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            options = PipelineOptions(list(flags))
            unknown = set(options.get_all_options(retain_unknown_options=True)) - set(options.get_all_options())
    except SystemExit:  # of argparse, whose last line says why
        reason = said.getvalue().strip().rpartition("error: ")[2]
        raise UserError(f"Beam does not take {' '.join(flags)}: {reason}") from None
    if unknown:
        raise UserError(f"--{sorted(unknown)[0]}: neither a flag of `mtl convert` nor of Beam; see `mtl convert -h`")
    return options


def _write_json(path: str, content: Any) -> str:
    with files.write(path) as file:
        file.write(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False).encode())
    return path


class _Hashed:
    """A file that is written, its size and its sha256."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.size, self.digest, self.flush = file, 0, hashlib.sha256(), file.flush

    def write(self, data: bytes) -> int:
        self.size += len(data)
        self.digest.update(data)
        return self.file.write(data)


def convert(plan: str, output: str) -> dict[str, Any]:
    """Write the shard of the plan in the file `plan`; return what is in it. Done twice, it writes the same bytes."""
    content = json.loads(files.read(plan))
    rows = [Row(**row) for row in content["rows"]]
    number = {name: index for index, name in enumerate(content["classes"])}
    counts: Counter[str] = Counter()
    kinds, heights, widths, discarded = set(), [], [], []
    pixels: list[tuple[int, int] | None] = []  # digest and label of each row
    with files.write(files.join(output, content["file"])) as raw:
        hashed = _Hashed(raw)
        # Level 1: images are compressed already, and gzip is here for what reads it.
        with gzip.GzipFile("", "wb", 1, hashed, mtime=0) as shard, decoding.no_bombs():
            for row, data in _read_all(rows):
                try:
                    if isinstance(data, Exception):
                        raise UserError(f"{row.uri}: cannot be read: {one_line(data)}")
                    image = encoding.prepare(data, row.uri)
                except UserError as error:
                    discarded.append((row.uri, row.label, str(error).removeprefix(f"{row.uri}: ")))
                    pixels.append(None)
                    continue
                shard.write(encoding.framed(encoding.example(image, row.name, number[row.label], row.split)))
                counts[row.label] += 1
                pixels.append((image.digest, number[row.label]))
                kinds.add(image.encoding)
                heights.append(image.height)
                widths.append(image.width)
    if discarded:
        name = "discarded-" + content["file"].replace(".tfrecord.gz", ".csv")
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("image_uri", "label", "reason"), *discarded])
        with files.write(files.join(output, name)) as file:
            file.write(text.getvalue().encode("utf-8", "surrogateescape"))
    return {
        "split": content["split"],
        "classes": content["classes"],
        "shard": Shard(
            file=content["file"], records=counts.total(), bytes=hashed.size, sha256=hashed.digest.hexdigest()
        ).model_dump(),
        "counts": dict(counts),
        "pixels": pixels,
        "kinds": sorted(kinds),
        "sizes": (min(heights), max(heights), min(widths), max(widths)) if heights else None,
        "discarded": (name, dict(Counter(reason.partition(" (")[0].partition(":")[0] for *_, reason in discarded)))
        if discarded
        else None,
    }


def _read_all(rows: Sequence[Row]) -> Iterator[tuple[Row, bytes | Exception]]:
    """Each row with its file, or what came of reading it, in order; those behind URIs several at a time."""
    if not any(files.is_remote(row.uri) for row in rows):
        yield from ((row, _read(row)) for row in rows)
        return
    with ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(rows), READERS):
            part = rows[start : start + READERS]
            yield from zip(part, pool.map(_read, part), strict=True)


def _read(row: Row) -> bytes | Exception:
    try:
        return files.read(row.uri)
    except Exception as error:  # each file system of fsspec raises its own
        return error


def write_manifest(done: list[dict[str, Any]], name: str, output: str) -> None:
    """Put what is in the shards together, and write the manifest; none where no image could be read."""
    done = sorted(done, key=lambda shard: shard["shard"]["file"])
    sizes = [shard["sizes"] for shard in done if shard["sizes"]]
    if not sizes:
        return
    kinds = sorted({kind for shard in done for kind in shard["kinds"]})
    low, high, narrow, wide = zip(*sizes, strict=True)
    splits = {}
    for split in dict.fromkeys(shard["split"] for shard in done):
        parts = [shard for shard in done if shard["split"] == split]
        counts = sum((Counter(part["counts"]) for part in parts), Counter())
        found = tuple(Shard(**part["shard"]) for part in parts)
        splits[split] = SplitRecords(shards=found, classes=dict(sorted(counts.items())))
    gone = [shard["discarded"] for shard in done if shard["discarded"]]
    reasons = sum((Counter(why) for _, why in gone), Counter())
    manifest = Manifest(
        name=name,
        classes=tuple(done[0]["classes"]),
        encoding=kinds[0] if len(kinds) == 1 else "mixed",
        height=(min(low), max(high)),
        width=(min(narrow), max(wide)),
        splits=splits,
        discarded=Discarded(
            count=reasons.total(), files=tuple(file for file, _ in gone), reasons=dict(sorted(reasons.items()))
        ),
        duplicates=_duplicates(done, output),
    )
    _write_json(files.join(output, files.MANIFEST), manifest.model_dump())


def _duplicates(done: Sequence[dict[str, Any]], output: str) -> Duplicates:
    """The images of the same pixels, those of train first; only of the first of them the names are read."""
    ordered = sorted(done, key=lambda shard: SPLITS.index(shard["split"]))
    places = [
        (SPLITS.index(shard["split"]), *pixels, shard["shard"]["file"], row)
        for shard in ordered
        for row, pixels in enumerate(shard["pixels"])
        if pixels
    ]
    splits, digests, labels, plans, rows = zip(*places, strict=True)

    def name(index: int) -> str:
        plan = json.loads(files.read(files.join(files.join(output, PLANS), f"{plans[index]}.json")))
        return plan["rows"][rows[index]]["name"]

    return duplicates.find(np.array(digests, np.uint64), np.array(splits), np.array(labels), name)
