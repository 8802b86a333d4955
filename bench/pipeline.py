"""Wall time of the pipeline in a fresh clone: `python bench/pipeline.py <copy of CIFAR-10> [--epochs 6]`.

`make run` as it comes (after the installation), no-ops, then the whole DAG forced with `dvc repro` and with `mtl repro
--jobs 2`, in turn. These two use fewer epochs, which can only make the share of what is not training look larger.
"""

from __future__ import annotations

import argparse
import os
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
    parser.add_argument("--epochs", type=int, default=6, help="of the two forced runs")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "clone"
        subprocess.run(["git", "clone", "-q", str(common.ROOT), str(root)], check=True)
        run = timed(root, "mtl", "run", CIFAR10_PATH=str(Path(options.copy).resolve()))
        rows.append({"what": "make run, shipped recipe", "seconds": run, "fits": fit_seconds(root)})
        print(rows[-1], flush=True)
        again = timed(root, "mtl", "run")
        rows.append({"what": "make run again", "seconds": again, "fits": 0.0})
        noops = [timed(root, "dvc", "repro", "-q") for _ in range(NOOPS)]
        rows.append(
            {"what": f"dvc repro, nothing to do, median of {NOOPS}", "seconds": statistics.median(noops), "fits": 0.0}
        )
        change = f"from mtl import quickstart as q; q.set_param('recipes.compact.epochs', {options.epochs})"
        timed(root, sys.executable, "-c", change)
        for command in (("dvc", "repro", "-f"), ("mtl", "repro", "-f", "--jobs", "2")):
            seconds = timed(root, *command)
            name = f"{' '.join(command)}, {options.epochs} epochs"
            rows.append({"what": name, "seconds": seconds, "fits": fit_seconds(root)})
            print(rows[-1], flush=True)
    sequential, parallel = rows[-2], rows[-1]
    figures = {
        "make_run_minutes": run / 60,
        "make_run_again_seconds": again,
        "noop_seconds": statistics.median(noops),
        "dag_over_fit": sequential["seconds"] / sequential["fits"],
        "parallel_over_sequential": parallel["seconds"] / sequential["seconds"],
    }
    common.report("pipeline", rows, figures, common.versions("dvc", "mlflow", "tensorflow"), epochs=options.epochs)


if __name__ == "__main__":
    main()
