"""The results of a run in a few lines."""

from __future__ import annotations

from mtl import files
from mtl.config import params
from mtl.data import paths, store
from mtl.tasks import kinds


def summary(settings: params.Params, seconds: float) -> str:
    """The results as a table, what they were got on, and what to try next."""
    dataset = store.read_dataset()
    verdict = files.read_json(paths.METRICS / "main_evaluate.json")
    official = ", the official archive" if dataset.is_official else ""
    lines = [
        f"{dataset.name}{official}: {dataset.train} training, {dataset.validation} validation and {dataset.test} test"
        " images",
        "",
        f"{'task':<16}{'recipe':<22}{'test loss':>10}{'test score':>16}{'skill':>10}",
    ]
    for task, got in verdict["tasks"].items():
        primary = next(iter(kinds.find(got["kind"]).SCORES))
        score, skill = (f"{got[key]:.4f}" if got[key] is not None else "–" for key in (primary, "skill"))
        lines.append(
            f"{task:<16}{settings.tasks[task].recipe:<22}{got['loss']:>10.4f}{f'{primary} {score}':>16}{skill:>10}"
        )
    lines += ["", f"{'sum_loss':<38}{verdict['sum_loss']:>10.4f}"]
    lines += [f"{key:<38}{verdict[key]:>26.4f}" for key in ("ave_acc", "ave_skill") if key in verdict]
    for task, got in verdict.get("derived", {}).items():
        primary = next(iter(kinds.find(verdict["tasks"][task]["kind"]).SCORES))
        if got[primary] is not None:
            lines.append(f"{task + ' as ' + got['from'] + ' implies it':<38}{f'{primary} {got[primary]:.4f}':>26}")
        if "contradiction_rate" in got:
            lines.append(f"{task + ' contradicts ' + got['from']:<38}{got['contradiction_rate']:>26.4f}")
    for task, got in verdict.get("combined", {}).items():
        primary = next(iter(kinds.find(verdict["tasks"][task]["kind"]).SCORES))
        if got[primary] is not None:
            lines.append(f"{task + ' and ' + got['from'] + ' combined':<38}{f'{primary} {got[primary]:.4f}':>26}")
    for task, got in verdict["tasks"].items():
        if got["examples"] < dataset.test:
            lines.append(f"{task}: {got['examples']} of the {dataset.test} test images have a label and are judged")
        if got["one_class"]:
            lines.append(f"WARNING: {task} gives one answer for every image; its training collapsed")
    lines += [
        "",
        f"{seconds:.0f} s. Next, after `source .venv/bin/activate`:",
        "  mlflow ui           every run, with its curves, model and lineage, at http://127.0.0.1:5000",
        "  dvc plots show      learning curves as a page",
        "  dvc params diff     what you changed in params.yaml since the last commit",
    ]
    return "\n".join(lines)
