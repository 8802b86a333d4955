"""The committed results are those of this code, and the README quotes them: `make check-release`."""

from __future__ import annotations

import importlib

import pytest
from conftest import ROOT
from ruamel.yaml import YAML

from mtl import lineage
from mtl.report.sections import sections

pytestmark = pytest.mark.release
README = (ROOT / "README.md").read_text()


def test_the_last_run_is_of_this_code_and_these_parameters(monkeypatch):
    """dvc.lock holds the md5 of every module that can change the bytes of an output: run the DAG before committing."""
    lock = YAML(typ="safe").load(ROOT / "dvc.lock")["stages"]
    monkeypatch.chdir(ROOT)
    for stage, entry in lock.items():
        now = {path: md5 for path, md5 in lineage.hashes(stage, "deps").items() if path.startswith("src/")}
        own = f"src/mtl/stages/{stage.partition('@')[0]}.py"
        assert {own, "src/mtl/files.py"} <= set(now)
        assert now == {dep["path"]: dep["md5"] for dep in entry["deps"] if dep["path"].startswith("src/")}, stage
    current = YAML(typ="safe").load(ROOT / "params.yaml")
    for task in ("model1", "model2"):
        used = lock[f"train@{task}"]["params"]["params.yaml"]
        name = current["tasks"][task]["recipe"]
        assert used[f"recipes.{name}"] == current["recipes"][name]


def test_the_tables_are_drawn_from_the_results(monkeypatch):
    """`python bench/readme.py` writes the tables of the benchmarks, of the metrics and of the study."""
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(ROOT / "bench")
    readme = importlib.import_module("readme")
    assert readme.filled(README) == README
    assert README.count(" -->\n\n|") == 3  # performance, verdict, study
    assert sections(markdown=True)[1] == []
