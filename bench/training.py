"""Images per second in training, side by side: `python bench/training.py [--rounds 3] [--torch PYTHON]`.

Contenders run in turn, in processes of their own, and a figure is the median over the rounds. Rates count the images of
both models: two at once last as long as the slower one, one after the other as long as their sum. The PyTorch row needs
an interpreter with torch==2.13.0 (bench/requirements.txt). Its images are ready in memory; ours are augmented as we go.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import common
import numpy as np

IMAGES = np.random.default_rng(0).integers(0, 256, size=(64, 32, 32, 3)).astype(np.uint8)
PUBLISHED = (("article_multiclass", 10), ("article_binary", 2))
COMPACT = (("compact", 10), ("compact", 2))
STEPS = {"compact": "8", "article_multiclass": "12", "article_binary": "12"}


def fit(model: tuple[str, int], change: Mapping[str, Any]) -> tuple[str, ...]:
    """Arguments of bench/speed.py for one model trained by this project."""
    return ("bench/speed.py", "fit", model[0], str(model[1]), STEPS[model[0]], json.dumps(change))


def at_once(models: tuple[tuple[str, int], ...], change: Mapping[str, Any]) -> float:
    """Images per second of both models in two processes of one thread."""
    children = [common.child(*fit(model, change)) for model in models]
    return 2 * min(common.answer(child)["value"] for child in children)


def in_turn(*commands: tuple[str, ...], **options: Any) -> float:
    """Images per second of two trainings one after the other."""
    rates = [common.answer(common.child(*command, **options))["value"] for command in commands]
    return 2 / sum(1 / rate for rate in rates)


def main() -> None:
    """Run the rounds and write bench/results/training.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--torch", help="an interpreter with torch==2.13.0; without it that row is left out")
    options = parser.parse_args()
    from mtl.config import params
    from mtl.data import backend

    backend.import_tensorflow()
    from mtl.networks import catalog, inference

    recipes = params.read().recipes
    widths = [str(width) for width in recipes["compact"].options["widths"]]
    batch = str(recipes["compact"].batch_size)
    torch = [("bench/torch_speed.py", str(n), batch, STEPS["compact"], *widths) for n in (10, 2)]
    contenders = {
        "matmul float32, GFLOP/s": lambda: common.answer(common.child("bench/speed.py", "matmul", "float32"))["value"],
        "matmul bfloat16, GFLOP/s": lambda: common.answer(common.child("bench/speed.py", "matmul", "bfloat16"))[
            "value"
        ],
        "published, plain script, float32, in turn": lambda: in_turn(
            *(("bench/speed.py", "script", name, str(n), STEPS[name]) for name, n in PUBLISHED)
        ),
        "published, this project, float32, at once": lambda: at_once(PUBLISHED, {}),
        "published, this project, bfloat16, at once": lambda: at_once(PUBLISHED, common.PUBLISHED_HERE),
        "compact, this project, float32, at once": lambda: at_once(COMPACT, {"precision": "float32"}),
        "compact, this project, bfloat16, at once": lambda: at_once(COMPACT, {}),
        "compact, PyTorch, bfloat16, in turn": lambda: in_turn(*torch, python=options.torch),
    }
    if not options.torch:
        del contenders["compact, PyTorch, bfloat16, in turn"]
    measured = defaultdict(list)
    for _ in range(options.rounds):
        for name, run in contenders.items():
            measured[name].append(run())
            print(f"{name}: {measured[name][-1]:.1f}", flush=True)
    median = {name: statistics.median(values) for name, values in measured.items()}
    rows = []
    for name, values in measured.items():
        models = COMPACT if name.startswith("compact") else PUBLISHED
        built = [catalog.build(recipes[recipe], (32, 32, 3), n, IMAGES) for recipe, n in models]
        # A multiply-add is two operations; the two passes back take twice the one forward.
        operations = statistics.mean(3 * 2 * inference.multiply_adds(model) for model in built)
        peak = median[f"matmul {'bfloat16' if 'bfloat16' in name else 'float32'}, GFLOP/s"] * 1e9
        rows.append(
            {
                "contender": name,
                "median": median[name],
                "minimum": min(values),
                "maximum": max(values),
                "of_matmul_peak": 1.0 if name.startswith("matmul") else median[name] * operations / peak,
            }
        )
    ours, plain = (
        median["published, this project, bfloat16, at once"],
        median["published, plain script, float32, in turn"],
    )
    figures = {"published_speedup": ours / plain}
    used = common.versions("tensorflow", "keras", "numpy")
    if options.torch:
        theirs = median["compact, PyTorch, bfloat16, in turn"]
        figures["compact_over_pytorch"] = median["compact, this project, bfloat16, at once"] / theirs
        used["torch"] = common.answer(common.child(*torch[0], python=options.torch))["torch"]
    common.report("training", rows, figures, used, unit="images per second, of both models", rounds=options.rounds)


if __name__ == "__main__":
    main()
