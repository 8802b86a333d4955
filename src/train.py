"""Train the model of one task: `python src/train.py model1`."""

import sys
from functools import partial

from mtl.stages import process, train

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python src/train.py <task>")
    process.run(partial(train.main, sys.argv[1]))
