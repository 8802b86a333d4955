"""What bfloat16 is worth on this machine: `python bench/precision.py [--rounds 3]`.

Images per second of `compact` through this project's own `training.fit`, one thread, in bfloat16 and in float32 in
turn; batches of 64 images, because a step takes long where bfloat16 is only imitated. `make run` goes by it: where the
processor has no bfloat16, it trains in float32.
"""

from __future__ import annotations

import argparse
import json
import statistics

import common

PRECISIONS = ("mixed_bfloat16", "float32")


def main() -> None:
    """Run the rounds and write bench/results/precision.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8, help="of an epoch; two epochs are measured")
    options = parser.parse_args()
    measured: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    for _ in range(options.rounds):
        for precision in PRECISIONS:
            change = json.dumps({"precision": precision, "batch_size": 64})
            said = common.answer(common.child("bench/speed.py", "fit", "compact", "10", str(options.steps), change))
            measured[precision].append(said["value"])
    rows = [
        {"precision": precision, "images_per_second": statistics.median(values), "rounds": values}
        for precision, values in measured.items()
    ]
    bfloat16, float32 = (statistics.median(measured[precision]) for precision in PRECISIONS)
    figures = {"float32_over_bfloat16": float32 / bfloat16}
    common.report("precision", rows, figures, common.versions("tensorflow", "keras"))


if __name__ == "__main__":
    main()
