"""No stage outlives the DVC that started it, however that ended."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest
from conftest import ROOT

SLEEPER = "import time; from mtl.stages import process; process.run(lambda: (print('up', flush=True), time.sleep(600)))"
# Stands for DVC: starts a stage through a shell, and waits for it.
PARENT = "import subprocess, sys; subprocess.run(['/bin/sh', '-c', sys.argv[1] + '; true'])"


@pytest.mark.parametrize("under_dvc", [True, False])
def test_a_stage_ends_with_the_process_that_started_it(under_dvc):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")}
    environment |= {"PYTHONPATH": str(ROOT / "src")} | ({"DVC_STAGE": "load_data"} if under_dvc else {})
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, f'"{sys.executable}" -c "{SLEEPER}"'], env=environment, stdout=subprocess.PIPE
    )
    try:
        assert parent.stdout.readline() == b"up\n"
        *_, stage = psutil.Process(parent.pid).children(recursive=True)  # the shell's child
        parent.kill()
        parent.wait()
        if under_dvc:
            psutil.wait_procs([stage], timeout=60)
            assert not stage.is_running() or stage.status() == psutil.STATUS_ZOMBIE
        else:
            assert stage.is_running()
            stage.kill()
    finally:
        parent.kill()


@pytest.mark.parametrize(
    "script", [*sorted((ROOT / "src").glob("*.py")), *sorted((ROOT / "study").glob("*.py"))], ids=str
)
def test_every_stage_is_started_that_way(script):
    assert "process.run(" in script.read_text()
