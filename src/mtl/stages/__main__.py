"""A stage of `mtl train` in a process of its own: `python -m mtl.stages load_data p.yaml data.path`.

The arguments after the stage are those of `running.named`: the params file and the options of the command.
"""

import importlib
import sys

from mtl.stages import process
from mtl.stages.job import running

if __name__ == "__main__":
    stage, file, *options = sys.argv[1:]
    process.run(running.named(file, options)(importlib.import_module(f"mtl.stages.{stage}").main))
