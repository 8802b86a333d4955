"""Train one arrangement with one seed and judge it on the held-out images: `python study/train.py shared 0`."""

import os
import sys
from functools import partial
from pathlib import Path

from mtl.stages import process
from mtl.study import train

if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parents[1])
    if len(sys.argv) != 3 or not sys.argv[2].isdigit():
        sys.exit("usage: python study/train.py <arrangement> <seed>")
    process.run(partial(train.main, sys.argv[1], int(sys.argv[2])))
