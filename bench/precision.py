"""What bfloat16 and oneDNN are worth on this machine: `python bench/precision.py [--rounds 3]`.

Images per second of `compact` through this project's own `training.fit`, one thread, in turn: in bfloat16, in float32,
and in float32 with TensorFlow's other kernels, Eigen's. `precision: auto` goes by the one: where the processor
has no bfloat16, it is float32, as a step of emulated bfloat16 takes a minute. `mtl.data.backend` goes by the other:
oneDNN is on for float32, also where TensorFlow by itself would leave it off.
"""

from __future__ import annotations

import argparse
import json
import statistics

import common

# Precision, steps of an epoch (two epochs are measured), environment.
CONTENDERS: dict[str, tuple[str, int, dict[str, str]]] = {
    "bfloat16": ("mixed_bfloat16", 1, {}),
    "float32": ("float32", 4, {}),
    "float32, Eigen": ("float32", 4, {"TF_ENABLE_ONEDNN_OPTS": "0"}),
}


def main() -> None:
    """Run the rounds and write bench/results/precision.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    measured: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(options.rounds):
        for name, (precision, steps, environment) in CONTENDERS.items():
            run = ("bench/speed.py", "fit", "compact", "10", str(steps), json.dumps({"precision": precision}))
            said = common.answer(common.child(*run, **environment))
            measured[name].append(said["value"])
    middle = {name: statistics.median(values) for name, values in measured.items()}
    rows = [{"contender": name, "images_per_second": middle[name], "rounds": measured[name]} for name in measured]
    figures = {
        "float32_over_bfloat16": middle["float32"] / middle["bfloat16"],
        "onednn_over_eigen": middle["float32"] / middle["float32, Eigen"],
    }
    common.report("precision", rows, figures, common.versions("tensorflow", "keras"))


if __name__ == "__main__":
    main()
