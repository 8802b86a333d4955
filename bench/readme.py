"""The README's tables: `python bench/readme.py` writes those of bench/results and of `mtl report` into it."""

from __future__ import annotations

import json
import re

import common

from mtl.report.sections import sections

README = common.ROOT / "README.md"
# Result file, figure in it, what it is, how it is written, the goal set before it was measured.
FIGURES = (
    ("pipeline", "make_run_minutes", "`make run` after the installation, minutes", ".1f", "≤ 12"),
    (
        "pipeline",
        "dag_over_fit",
        "`dvc repro --force`, a stage at a time, over its seconds in `fit`",
        ".2f",
        "≤ 1.25",
    ),
    ("pipeline", "noop_seconds", "`dvc repro` with nothing to do, seconds", ".1f", "≤ 1.5"),
    ("time_to_accuracy", "model1_acc", "`model1`, accuracy on 6,000 held-out images, three seeds", ".4f", "≥ 0.935"),
    ("time_to_accuracy", "model2_best", "`model2`, the best of own, derived and combined, likewise", ".4f", "≥ 0.99"),
    ("time_to_accuracy", "combined_nll_gain_low", "combined, NLL below the better of both, at least", "+.4f", "> 0"),
    ("time_to_accuracy", "ece_max", "expected calibration error of the worst model and seed", ".3f", "≤ 0.015"),
    ("recipe_cost", "cpu_over_before", "processor seconds of the shipped recipes over those before", ".2f", "≤ 1"),
    ("time_to_published", "cpu_ratio", "processor time to the published best, over published", ".3f", "≤ 0.02"),
    ("time_to_published", "cpu_ratio_short", "the same, cut to one pass over few images", ".3f", "≤ 0.012"),
    ("training", "published_speedup", "published networks, images per second over the plain script", ".2f", "≥ 2"),
    ("training", "compact_over_pytorch", "`compact`, images per second over PyTorch 2.13", ".2f", "≥ 1"),
    ("step_profile", "convolutions_share", "share of convolutions in a training step of `compact`", ".2f", ""),
    ("step_profile", "convolutions_gflops", "what they reach on one core, GFLOP/s", ".0f", ""),
    ("step_profile", "matmul_gflops", "what a bfloat16 matrix product reaches there, GFLOP/s", ".0f", ""),
    ("precision", "float32_over_bfloat16", "`compact` in float32 over bfloat16 that is emulated", ".0f", ""),
    ("precision", "onednn_over_eigen", "`compact` in float32, oneDNN's kernels over Eigen's", ".1f", ""),
    (
        "serving",
        "rps_ratio_16",
        "`mtl serve` over `mlflow models serve`, requests per second, 16 clients",
        ".0f",
        "≥ 40",
    ),
    ("serving", "rps_ratio_1", "the same, 1 client", ".0f", "≥ 4"),
    ("serving", "p99_ratio_16", "the same, p99 latency, 16 clients", ".3f", "≤ 0.05"),
    ("serving", "binary_over_json", "binary tensors over JSON, 64 images a request", ".1f", "≥ 2"),
    ("serving", "failed_under_reload", "requests failed in 60 s of 32 clients and 12 reloads", ".0f", "0"),
    ("serving", "memory_growth", "memory at its end over after 10 s", ".2f", "≤ 1.05"),
    ("input", "convert_images_per_second", "`mtl convert` of the 60,000 images, images per second", ",.0f", "≥ 3,000"),
    ("input", "tfrecord_over_arrays", "training from TFRecords, streamed, over training from arrays", ".2f", "≥ 0.9"),
    ("input", "two_workers_over_one", "two workers of one core over one process of two threads", ".2f", "≥ 0.9"),
    ("input", "memory_10x", "peak memory on 10 times the images over on the images", ".2f", "≤ 1.3"),
)


def performance() -> str:
    """A Markdown table of the figures of all benchmarks; ¹ marks those of a processor without bfloat16."""
    rows = ["| | measured | goal | `bench/results/` |", "|---|---|---|---|"]
    for name, figure, what, form, goal in FIGURES:
        result = json.loads((common.RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        elsewhere = "" if result["machine"]["native_bfloat16"] else " ¹"
        rows.append(f"| {what} | {result['figures'][figure]:{form}}{elsewhere} | {goal} | `{name}`: `{figure}` |")
    return "\n".join(rows)


def filled(text: str) -> str:
    """`text` with each table between the comments that name it, such as `<!-- bench: performance -->`."""
    drawn = {f"mtl report: {name}": content for name, content in sections(markdown=True)[0].items()}
    for name, content in {"bench: performance": performance(), **drawn}.items():
        maker = name.partition(":")[0]
        pattern = rf"(<!-- {name} -->\n\n).*?(<!-- {maker}: end -->)"
        text, found = re.subn(pattern, lambda match, new=content: f"{match[1]}{new}\n\n{match[2]}", text, flags=re.S)
        if found != 1:
            raise SystemExit(f"error: README.md has {found} comments `<!-- {name} -->`, where one is needed")
    return text


if __name__ == "__main__":
    README.write_text(filled(README.read_text(encoding="utf-8")), encoding="utf-8")
