"""Images to TFRecords and training from them: `python bench/input.py <copy of CIFAR-10> [--rounds 3]`.

The copy is a folder or tar of <split>/<class>/<file>. Converted is all of it, by `mtl convert` as it comes
(DirectRunner, all cores), from starting the command to its end. Then, in turn: training from arrays, from shards that
are streamed, and from shards as `data.cache` has it (in memory, where they fit); two workers over one process. At last
the peak memory of training and judging on 10 times the images over that on the images once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import common
import two_workers

KINDS = {"arrays": "from arrays", "records": "from records, streamed", "cached": "from records, as data.cache has it"}
HELD_OUT = "5000"


def convert(tree: str, output: Path) -> tuple[float, float]:
    """Images per second of `mtl convert`, and how many images there are."""
    started = time.perf_counter()
    code = "from mtl.cli import main; main()"
    process = common.child("-c", code, "convert", tree, str(output), "--validation", HELD_OUT)
    process.communicate()
    if process.returncode:
        sys.exit(f"error: mtl convert ended with status {process.returncode}")
    seconds = time.perf_counter() - started
    manifest = json.loads((output / "manifest.json").read_text(encoding="utf-8"))
    count = sum(shard["records"] for split in manifest["splits"].values() for shard in split["shards"])
    return count / seconds, count


def row(what: str, unit: str, values: list[float]) -> dict[str, float | str]:
    """A line of the table."""
    middle = statistics.median(values)
    return {"what": what, "unit": unit, "median": middle, "minimum": min(values), "maximum": max(values)}


def main() -> None:
    """Run the rounds and write bench/results/input.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("copy", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        tree = options.copy.resolve()
        if tree.is_file():
            with tarfile.open(tree) as archive:
                archive.extractall(Path(folder, "images"), filter="data")
            tree = Path(folder, "images")
        rates, measured, count = [], {kind: [] for kind in KINDS}, 0.0
        for number in range(options.rounds):
            output = Path(folder, f"shards{number}")
            rate, count = convert(str(tree), output)
            rates.append(rate)
            print(f"convert: {rate:.0f} images per second", flush=True)
            for kind in KINDS:
                process = common.child("bench/feeding.py", "speed", kind, str(output))
                measured[kind].append(common.answer(process)["value"])
                print(f"{KINDS[kind]}: {measured[kind][-1]:.1f} images per second", flush=True)
        shown = {"convert": rates} | {KINDS[kind]: values for kind, values in measured.items()}
        rows = [row(what, "images per second", values) for what, values in shown.items()]
        peaks = []
        for repeated in (1, 10):
            process = common.child("bench/feeding.py", "memory", str(output), str(repeated))
            peaks.append(common.answer(process))
            rows.append(row(f"peak memory, {peaks[-1]['trained']:,} images", "MiB", [peaks[-1]["value"]]))
            print(rows[-1], flush=True)
    figures, workers = two_workers.compare(options.rounds)
    rows += [{"what": worker.pop("contender"), "unit": "images per second"} | worker for worker in workers]
    median = {kind: statistics.median(values) for kind, values in measured.items()}
    figures = {
        "convert_images_per_second": statistics.median(rates),
        "tfrecord_over_arrays": median["records"] / median["arrays"],
        "cached_over_arrays": median["cached"] / median["arrays"],
        "memory_10x": peaks[1]["value"] / peaks[0]["value"],
        **figures,
    }
    used = common.versions("apache-beam", "tensorflow", "keras", "numpy", "pillow")
    common.report("input", rows, figures, used, rounds=options.rounds, images=count)


if __name__ == "__main__":
    main()
