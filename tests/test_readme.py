"""What the README says is what the repository holds."""

from __future__ import annotations

import hashlib
import json
import re

import pytest
from conftest import ROOT
from ruamel.yaml import YAML

from mtl import params

README = (ROOT / "README.md").read_text()


def rows(section: str) -> list[list[str]]:
    """The cells of the table rows of a section."""
    text = README.split(f"## {section}\n")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip(" `*") for cell in line.strip("|").split("|")] for line in lines]


def test_the_results_are_those_of_the_last_run():
    verdict = json.loads((ROOT / "metrics/main_evaluate.json").read_text())
    said = {cells[0].replace("`", "").partition(",")[0]: cells[1:] for cells in rows("Results")}
    settings = params.read(ROOT / "params.yaml")
    for task, got in verdict["tasks"].items():
        assert said[task] == [settings.tasks[task].recipe, f"{got['loss']:.4f}", f"{got['acc']:.4f}"]
    assert said["sum_loss"][1] == f"{verdict['sum_loss']:.4f}"
    assert said["ave_acc"][2] == f"{verdict['ave_acc']:.4f}"
    assert said["derived from model1"][2] == f"{verdict['derived']['model2']['acc']:.4f}"
    assert said["contradictions"][2] == f"{verdict['contradiction_rate']:.4f}"


def test_the_last_run_is_of_this_code_and_these_parameters():
    """dvc.lock holds the md5 of every module that can change the bytes of an output: run the DAG before committing."""
    lock = YAML(typ="safe").load(ROOT / "dvc.lock")["stages"]
    for stage, entry in lock.items():
        for dep in entry["deps"]:
            path = ROOT / dep["path"]
            if dep["path"].startswith("src/") and path.is_file():
                assert hashlib.md5(path.read_bytes()).hexdigest() == dep["md5"], f"{stage}: {dep['path']} changed"
    current = YAML(typ="safe").load(ROOT / "params.yaml")
    for task in ("model1", "model2"):
        used = lock[f"train@{task}"]["params"]["params.yaml"]
        name = current["tasks"][task]["recipe"]
        assert used[f"recipes.{name}"] == current["recipes"][name]


def test_the_metrics_say_what_they_were_got_on():
    assert "JPEG copy" in README.split("## Results")[1].split("##")[0]


@pytest.mark.parametrize("target", sorted(set(re.findall(r"make (run|test|test-all|setup|lint|clean)\b", README))))
def test_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)


def test_the_folders_and_files_of_the_layout_exist():
    layout = README.split("## Layout")[1].split("```")[1]
    names = [name for line in layout.splitlines() for name in re.findall(r"[\w.]+(?:\.\w+|/)", line.split("   ")[0])]
    assert len(names) > 8
    for name in names:
        assert (ROOT / name.rstrip("/")).exists() or name == "mtl/", name
