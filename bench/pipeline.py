"""Wall time of the pipeline in a fresh clone: `python bench/pipeline.py <copy of CIFAR-10>`.

`make run` as it comes (after the installation), which is `mtl repro --jobs 2`, then no-ops, then the whole DAG forced
with `dvc repro`, one stage after the other. `--keep FOLDER` keeps the clone with its dvc.lock, metrics and models.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common

NOOPS = 5


def timed(root: Path, *command: str, **environment: str) -> float:
    """Wall seconds of a command in `root`; ends the benchmark where the command fails."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    inherited = {"PATH": path, "PYTHONPATH": str(root / "src"), "DVC_NO_ANALYTICS": "1"}
    started = time.perf_counter()
    done = subprocess.run(
        command, cwd=root, env=os.environ | inherited | environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"error: {' '.join(command)} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - started


def fit_seconds(root: Path) -> float:
    """The sum of `fit_seconds` of the last run of each task."""
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{root / 'mlflow.db'}")
    runs = mlflow.search_runs(experiment_names=["model1", "model2"], order_by=["start_time DESC"])
    return float(runs.groupby("experiment_id")["metrics.fit_seconds"].first().sum())


def main() -> None:
    """Measure, and write bench/results/pipeline.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("copy", help="as CIFAR10_PATH")
    parser.add_argument("--keep", type=Path, help="where the clone stays, as `make run` left it")
    options = parser.parse_args()
    rows = []

    def measure(what: str, *command: str, **environment: str) -> float:
        seconds = timed(root, *command, **environment)
        rows.append({"what": what, "seconds": seconds, "fits": fit_seconds(root)})
        print(rows[-1], flush=True)
        return seconds

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "clone"
        subprocess.run(["git", "clone", "-q", str(common.ROOT), str(root)], check=True)
        run = measure("make run", "mtl", "run", CIFAR10_PATH=str(Path(options.copy).resolve()))
        again = timed(root, "mtl", "run")
        noops = [timed(root, "dvc", "repro", "-q") for _ in range(NOOPS)]
        if options.keep:
            shutil.copytree(root, options.keep, symlinks=True)
        sequential = measure("dvc repro --force", "dvc", "repro", "--force")
    figures = {
        "make_run_minutes": run / 60,
        "make_run_again_seconds": again,
        "noop_seconds": statistics.median(noops),
        "dag_over_fit": sequential / rows[-1]["fits"],
        "parallel_over_sequential": run / sequential,
    }
    common.report("pipeline", rows, figures, common.versions("dvc", "mlflow", "tensorflow"), noops=noops)


if __name__ == "__main__":
    main()
