"""The examples: their parameters are valid, and their tables come from the sources as these are published."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema_rs
import pytest
from conftest import ROOT
from images import encoded, pixels, write_tree
from ruamel.yaml import YAML

from mtl.config import params
from mtl.config.params import Data
from mtl.report.sections import sections
from mtl.sources import table

EXAMPLES = sorted(path.parent.name for path in ROOT.glob("examples/*/params.yaml"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_parameters_are_valid_and_every_task_names_its_column(name):
    folder = ROOT / "examples" / name
    settings = params.read(folder / "params.yaml")
    assert all(task.column for task in settings.tasks.values())
    tree = YAML(typ="safe").load(folder / "params.yaml")
    assert jsonschema_rs.is_valid(json.loads((ROOT / "params.schema.json").read_text()), tree)
    first = (folder / "params.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=../../params.schema.json"


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_came_out_is_kept_beside_the_parameters_and_can_be_printed(name, monkeypatch):
    folder = ROOT / "examples" / name
    monkeypatch.chdir(folder)
    texts, _ = sections(markdown=False)
    for task in params.read(folder / "params.yaml").tasks:
        assert all(re.search(rf"^{task}\b", texts[part], re.MULTILINE) for part in ("verdict", "relations", "advice"))


def prepared(name: str, source: Path, target: Path) -> list[dict[str, str]]:
    """The rows of the table that an example's script makes, read by this project too."""
    script = ROOT / "examples" / name / "prepare.py"
    subprocess.run([sys.executable, str(script), str(source), str(target)], check=True)
    with (target / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    loaded = table.load(Data(source="table", path=str(target), validation=0), 0)
    assert sum(map(len, loaded.images.values())) == len(rows)
    return rows


def test_clothing_comes_from_its_repository(tmp_path):
    rows = [f"i{number},{number % 3},{('T-Shirt', 'Not sure')[number % 2]},{number % 5 == 0}" for number in range(40)]
    text = "\n".join(["image,sender_id,label,kids", *rows, "gone,1,Hat,False"])
    photographs = {f"images/i{number}.jpg": encoded(pixels(number, 40, 30), "jpeg") for number in range(41)}
    made = prepared(
        "clothing", write_tree(tmp_path / "in", {"images.csv": text.encode(), **photographs}), tmp_path / "out"
    )
    assert len(made) == 40
    assert {row["label"] for row in made} == {"T-Shirt", ""}
    assert {row["kids"] for row in made} == {"true", "false"}
    assert {row["split"] for row in made} == {"train", "validation", "test"}


def test_omniglot_comes_from_its_repository(tmp_path):
    files = {}
    for number in range(30):
        place = f"Greek/character{number % 2 + 1:02}/{number % 2 + 394:04}_{number // 2 + 1:02}"
        files[f"images_background_small1/{place}.png"] = encoded(pixels(number, 105, 105))
        strokes = "START\n1.0,2.0,0.0\n1.5,2.5,250.0\nBREAK\n3.0,4.0,500.0\n3.0,5.0,1000.5\nBREAK\n"
        files[f"strokes_background_small1/{place}.txt"] = strokes.encode()
    files["images_background_small2/Greek/character01/0394_01.png"] = encoded(pixels(0, 105, 105))
    made = prepared("omniglot", write_tree(tmp_path / "in", files), tmp_path / "out")
    assert len(made) == 30
    assert {(row["alphabet"], row["strokes"], row["milliseconds"]) for row in made} == {("Greek", "2", "1000.5")}
    assert {row["character"] for row in made} == {"Greek_character01", "Greek_character02"}
