"""A full disk is one line, whoever writes at that moment: MLflow's database, HDF5 or Keras."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

FILL = """
import os, sys
from pathlib import Path
from mtl import errors, tracking
from mtl.config import params

SETTINGS = params.read(Path(sys.argv[1]))


def fill(leave=0):
    Path("spare").write_bytes(bytes(leave))
    file = os.open("filling", os.O_WRONLY | os.O_CREAT)
    for size in (65536, 1):
        try:
            while True:
                os.write(file, bytes(size))
        except OSError:
            pass
    os.close(file)
    Path("spare").unlink()

"""
BEGIN = """
def main():
    fill()
    with tracking.stage_run("load_data", SETTINGS):
        pass
"""
LOG = """
def main():
    with tracking.stage_run("load_data", SETTINGS) as run:
        fill()
        run.log_metrics({"a": 1.0})
        run.log_params({"b": 1})
        run.log_json({}, "c.json")
"""
WEIGHTS = """
import h5py, numpy as np

def main():
    with tracking.stage_run("load_data", SETTINGS):
        fill(leave=ROOM)
        with h5py.File("a.weights.h5", "w") as file:
            for name in "abcd":
                file[name] = np.random.default_rng(0).random(50_000)
"""


@pytest.fixture
def small(tmp_path) -> Iterator[Path]:
    """A disk of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder]).returncode:
        pytest.skip("a small disk can be mounted by root alone")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def run(code: str, folder: Path) -> tuple[int, list[str]]:
    """Run `main` as a stage is run; its exit status, and its lines on stderr."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "DVC_"))}
    done = subprocess.run(
        [sys.executable, "-c", f"{FILL}{code}\nerrors.run(main)", str(ROOT / "params.yaml")],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr.splitlines()


def test_a_store_that_cannot_be_made(small):
    status, (line,) = run(BEGIN, small)
    assert status == 1
    assert "mlflow.db" in line
    assert "make room" in line


def test_what_is_logged_to_a_full_disk_is_named_once(small):
    status, (line,) = run(LOG, small)
    assert status == 0
    assert "make room" in line
    assert "metrics, parameters, c.json, tags, end of the run" in line


@pytest.mark.parametrize("room", [0, 1_000_000, 1_598_000])
def test_weights_that_cannot_be_written(small, room):
    """At any moment: as the file is made, in its midst, as it is closed."""
    status, (line,) = run(WEIGHTS.replace("ROOM", str(room)), small)
    assert status == 1
    assert "a.weights.h5: No space left on device; make room" in line
    (small / "filling").unlink()
    assert run(BEGIN.replace("fill()", ""), small) == (0, [])  # and all goes on
