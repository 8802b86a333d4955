"""The whole DAG on a table of several columns, with gaps in each and groups that are not divided."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Project
from PIL import Image
from test_dag import ran

TASKS = {
    "colour": {"column": "Farbe", "recipe": "compact"},
    "warm": {"column": "Farbe", "labels": {"yes": ["rot", "gelb"], "no": ["blau"]}, "recipe": "compact"},
    "bright": {"column": "bright", "recipe": "rare"},
    "number": {"column": "number", "recipe": "compact"},
}
COLOURS = {"rot": (200, 60, 60), "gelb": (200, 200, 60), "blau": (60, 60, 200)}


def write_table(folder: Path, renamed: str | None = None) -> None:
    """A table of 120 images, five of a series, every column with gaps; the last column's name of 3 may be `renamed`."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(120):
        name = tuple(COLOURS)[index % 3]
        bright = index % 5 == 0
        colour = np.array(COLOURS[name]) + (40 if bright else 0)
        pixels = np.clip(colour + rng.integers(-15, 16, (12, 12, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"images/{index}.png")
        cells = [name, str(bright).lower(), (renamed if renamed and index % 4 == 3 else f"n{index % 4}")]
        cells = ["NA" if (index + 3 * place) % 11 == 0 else cell for place, cell in enumerate(cells)]
        rows.append([f"images/{index}.png", *cells, f"s{index // 5}"])
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=";").writerows([["Image", "Farbe", "bright", "number", "series"], *rows])


def table_parameters(tree: dict) -> None:
    tree["data"] = {"source": "table", "path": "data/external", "missing": ["NA"], "group": "series"}
    tree["data"] |= {"validation": 0.15, "test": 0.25, "shifted": "data/shifted"}
    tree["tasks"] = TASKS
    tree["recipes"]["rare"] = {**tree["recipes"]["compact"], "class_weight": "balanced"}
    tree["promote"]["accuracy"] = {"colour": 0.1}


def figures(project: Project) -> dict:
    return json.loads((project.root / "metrics/main_evaluate.json").read_text())


@pytest.mark.slow
def test_a_table_with_gaps_and_groups_goes_through_and_a_column_retrains_its_own_task(fresh: Project, tmp_path):
    project = fresh.copy(tmp_path / "p")
    project.environment = fresh.environment | {"PYTHONPATH": str(project.root / "src")}
    shutil.rmtree(project.root / "data/external")
    write_table(project.root / "data/external")
    project.edit(table_parameters)
    project.run("dvc", "add", "-q", "data/external")
    project.run("dvc", "repro", "-q")

    columns = pq.read_table(project.root / "data/raw/columns/columns.parquet").to_pylist()
    sides: dict[str, set[str]] = {}
    for row in columns:
        sides.setdefault(row["series"], set()).add(row["split"])
    assert {len(splits) for splits in sides.values()} == {1}
    verdict = figures(project)
    test = [row for row in columns if row["split"] == "test"]
    for task, column in (("colour", "Farbe"), ("bright", "bright"), ("number", "number")):
        known = sum(row[column] is not None for row in test)
        assert verdict["tasks"][task]["examples"] == known < len(test)
    assert "warm" in verdict["derived"]  # others too, where the models of so short a training know half as much
    assert verdict["derived"]["warm"]["from"] == "colour"
    derived = verdict["derived"]["warm"]
    assert derived["agree"]["images"] + derived["contradict"]["images"] == len(test)
    assert {"auc", "average_precision"} <= verdict["tasks"]["bright"].keys()

    write_table(project.root / "data/external", renamed="three")
    project.run("dvc", "add", "-q", "data/external")
    output = project.run("dvc", "repro").stdout
    assert ran(output) >= {"load_data", "derive_labels", "train@number", "main_evaluate"}
    assert not {"train@colour", "train@warm", "train@bright"} & ran(output)
    for task in ("colour", "bright"):
        assert figures(project)["tasks"][task] == verdict["tasks"][task]
    report = project.run("mtl", "report").stdout
    assert all(task in report for task in TASKS)


def test_a_wrong_column_is_refused_before_anything_is_lost(done: Project, tmp_path):
    project = done.copy(tmp_path / "p")
    project.edit(lambda tree: tree["tasks"]["model2"].update(column="clas"))
    failed = project.run("dvc", "repro", check=False)
    assert failed.returncode != 0
    (line,) = [line for line in failed.stderr.splitlines() if line.startswith("error")]
    assert "tasks.model2.column" in line and "'class'" in line
    assert (project.root / "models/model1.keras").exists() and (project.root / "models/model2.keras").exists()
