"""Gather the runs of the study into metrics/study.json and draw them: `python study/summary.py`."""

import os
from pathlib import Path

from mtl.stages import process
from mtl.study import summary

if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parents[1])
    process.run(summary.main)
