"""What the benchmarks share: versions, results as JSON, and a table."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"

# The published networks (recipes article_…) at their best in this project: same network, images, batch size and Adam.
# What it does to their accuracy was not measured.
PUBLISHED_HERE = {
    "precision": "mixed_bfloat16",
    "schedule": {"name": "one_cycle", "warmup": 0.2},
    "augmentation": {"flip": True, "translate": 2},
    "epochs": 6,
}


def versions(*packages: str) -> dict[str, str]:
    """Versions of Python and of `packages`."""
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def child(*arguments: str, python: str = sys.executable, cwd: Path = ROOT, **environment: str) -> subprocess.Popen[str]:
    """Start a script of this folder in a process of its own, in `cwd`; it prints one line of JSON at its end."""
    script = str(ROOT / arguments[0]) if arguments[0].startswith("bench/") else arguments[0]
    inherited = {"PYTHONPATH": str(ROOT / "src"), "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(
        [python, script, *arguments[1:]],
        cwd=cwd,
        env=os.environ | inherited | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a `child` and read its last line; ends the benchmark where the child failed."""
    output, _ = process.communicate()
    if process.returncode:
        sys.exit(f"error: {' '.join(map(str, process.args))} ended with status {process.returncode}")
    return json.loads(output.strip().splitlines()[-1])


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of the same keys as aligned text."""
    cells = [list(rows[0])] + [
        [f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)


def report(
    name: str, rows: Sequence[Mapping[str, Any]], figures: Mapping[str, float], used: Mapping[str, str], **more: Any
) -> None:
    """Print the table and the figures, and write bench/results/<name>.json."""
    from mtl.data import backend

    print(table(rows), end="\n\n")
    for figure, value in figures.items():
        print(f"{figure:<22}{value:.4g}")
    content = {"machine": backend.machine(), "versions": used, "figures": figures, "rows": rows, **more}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
