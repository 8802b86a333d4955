"""What the README says is what the repository holds."""

from __future__ import annotations

import csv
import re

import pytest
from conftest import ROOT

README = (ROOT / "README.md").read_text()


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
    indented = [line[:36] for line in layout.splitlines() if line.startswith("    ")]
    rooms = {room for line in indented for room in re.findall(r"(\w+)/", line)}
    assert rooms == {path.parent.name for path in (ROOT / "src/mtl").glob("*/__init__.py")}


def test_the_study_says_what_its_trials_did():
    with (ROOT / "docs/tune.csv").open(encoding="utf-8", newline="") as file:
        trials = list(csv.DictReader(file))
    page, readme = (
        " ".join((ROOT / name).read_text(encoding="utf-8").split()) for name in ("docs/search.md", "README.md")
    )
    whole = sorted((float(trial["val_acc"]), trial["trial"]) for trial in trials if trial["state"] == "complete")
    shipped = next(value for value, number in whole if number == "0")
    (best, number), epochs = whole[-1], sum(int(trial["epochs"]) for trial in trials)
    pruned = sum(trial["state"] == "pruned" for trial in trials)
    assert len(whole) + pruned == 30
    assert f"| {number}, drawn | **{best:.4f}** |" in page
    assert f"| 0, the shipped recipe | {shipped:.4f} |" in page
    assert f"Trial {number} answers {round((best - shipped) * 5000)} of 5,000 images more" in page
    assert (
        f"{pruned} trials were stopped early, {epochs} epochs were trained: {epochs / 180:.0%}".replace("%", " %")
        in page
    )
    assert f"{epochs} of 180 epochs" in readme
    assert f"the best trial had {best:.4f} on the validation images, the recipe {shipped:.4f}" in readme
