"""The whole DAG on a table with tasks of all kinds and gaps in every column."""

from __future__ import annotations

import ast
import csv
import hashlib
import json
import math
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import Project
from images import encoded
from test_dag import ran

from mtl.data import paths
from mtl.tasks.spec import read_from_model

SPLITS = ("train", "validation", "test")
TASKS = {
    "shape": {"column": "shape", "recipe": "compact"},
    "flags": {"kind": "multilabel", "columns": ["red", "noisy"], "recipe": "compact"},
    "tags": {"kind": "multilabel", "column": "tags", "delimiter": "|", "recipe": "compact"},
    "size": {"kind": "value", "column": "size", "unit": "px", "recipe": "compact"},
    "area": {"kind": "value", "column": "area", "transform": "log", "recipe": "compact"},
}
PRIMARY = {"classes": "acc", "multilabel": "map", "value": "r2"}
FIGURES = {
    "classes": {"acc", "nll", "skill", "ece", "balanced_acc", "macro_f1"},
    "multilabel": {"map", "skill", "micro_f1", "macro_f1", "exact_match", "ece"},
    "value": {"r2", "skill", "mae", "rmse", "spearman"},
}
TABLES = {
    "confusion": {"shape"},
    "per_class": {"shape"},
    "per_label": {"flags", "tags"},
    "reliability": {"shape", "flags", "tags"},
    "values": {"size", "area"},
}


def kind_of(task: str) -> str:
    return str(TASKS[task].get("kind", "classes"))


def write_table(folder: Path, more: int = 0) -> None:
    """A table of 120 images with a gap in every column; the column `area` is `more` than it was."""
    rng = np.random.default_rng(0)
    (folder / "img").mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(120):
        wide, size, red, noisy = index % 2, int(rng.integers(2, 11)), rng.random() < 0.5, rng.random() < 0.4
        image = np.full((12, 12, 3), 230)
        image[3 : 6 + 3 * (1 - wide), 1 : 1 + size] = (200, 30, 30) if red else (30, 30, 200)
        image += rng.integers(-40, 41, image.shape) if noisy else rng.integers(0, 6, image.shape)
        (folder / f"img/{index}.png").write_bytes(encoded(np.clip(image, 0, 255).astype(np.uint8)))
        tags = "|".join(name for name, on in (("red", red), ("noisy", noisy), ("big", size > 5)) if on) or "|"
        area = size * (3 if wide else 6) + more
        cells = ["wide" if wide else "tall", int(red), str(noisy).lower(), tags, size, area]
        cells = ["" if (index + 2 * place) % 13 == 0 else cell for place, cell in enumerate(cells)]
        rows.append([f"img/{index}.png", *cells, SPLITS[(index // 2) % 5 % 3]])
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        header = ["image", "shape", "red", "noisy", "tags", "size", "area", "split"]
        csv.writer(file).writerows([header, *rows])


def parameters(tree: dict) -> None:
    tree["data"] = {"source": "table", "path": "data/external", "shifted": "data/shifted", "validation": 0}
    tree["tasks"] = TASKS
    tree["promote"] = {"minimum": {"size": {"r2": -1.0}}, "contradictions": 1.0, "significance": None}
    tree["recipes"]["compact"] |= {"loss": "auto", "batch_size": 16}
    tree.pop("tune", None)


def outputs(project: Project, task: str) -> dict[str, str]:
    """The digest of all that a training leaves."""
    names = (f"models/{task}.keras", f"metrics/{task}.json", f"metrics/plots/{task}_history.csv")
    return {name: hashlib.md5((project.root / name).read_bytes()).hexdigest() for name in names}


@pytest.fixture(scope="module")
def mixed(fresh: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone with such a table, after `dvc repro`."""
    project = fresh.copy(tmp_path_factory.mktemp("mixed") / "p")
    project.environment = fresh.environment | {"PYTHONPATH": str(project.root / "src")}
    shutil.rmtree(project.root / "data/external")
    write_table(project.root / "data/external")
    project.edit(parameters)
    project.run("dvc", "add", "-q", "data/external")
    project.run("dvc", "repro", "-q")
    return project


@pytest.mark.slow
def test_labels_are_the_columns_and_gaps_are_known(mixed):
    columns = pq.read_table(mixed.root / "data/raw/columns/columns.parquet").to_pylist()
    sources = {"shape": ["shape"], "flags": ["red", "noisy"], "tags": ["tags"], "size": ["size"], "area": ["area"]}
    for task, names in sources.items():
        folder = mixed.root / "data/labels" / task
        spec = json.loads((folder / "task.json").read_text())
        assert spec["columns"] == names
        for split in SPLITS:
            cells = [[row[name] for name in names] for row in columns if row["split"] == split]
            known = np.array([[cell is not None for cell in row] for row in cells])
            labels, on_disk = (np.load(folder / f"{stem}_{split}.npy") for stem in ("y", "known"))
            if task == "tags":
                known = known.repeat(3, axis=1)
                expected = [[name in (row[0] or "").split("|") for name in ("big", "noisy", "red")] for row in cells]
            elif task == "shape":
                expected = [[spec["names"].index(row[0]) if row[0] else 0] for row in cells]
            else:
                expected = [[float(cell or 0) for cell in row] for row in cells]
            assert 0 < known.sum() < known.size
            np.testing.assert_array_equal(on_disk.reshape(known.shape), known)
            np.testing.assert_array_equal(labels.reshape(known.shape), expected)
    assert {row["split"] for row in columns} == {*SPLITS}


@pytest.mark.slow
def test_metrics_tables_and_plots_are_those_of_each_kind(mixed):
    verdict = json.loads((mixed.root / "metrics/main_evaluate.json").read_text())
    for task in TASKS:
        kind, judged = kind_of(task), verdict["tasks"][task]
        primary = PRIMARY[kind]
        metrics = json.loads((mixed.root / f"metrics/{task}.json").read_text())
        of_splits = {f"{part}_{name}" for part in ("train", "val", "test") for name in ("loss", primary)}
        assert of_splits | {"precision"} == metrics.keys() - {"calibration"}
        assert metrics[f"test_{primary}"] == pytest.approx(judged[primary], abs=1e-4)
        assert judged["kind"] == kind
        assert judged.keys() >= FIGURES[kind] | {"loss", f"{primary}_low", f"{primary}_high", "one_class", "examples"}
        assert judged[f"{primary}_low"] <= judged[f"{primary}_high"]
        assert all(math.isfinite(judged[name]) for name in FIGURES[kind] if judged[name] is not None)
        known = [np.load(mixed.root / f"data/labels/{task}/known_test.npy")]
        assert judged["examples"] == int(known[0].reshape(len(known[0]), -1).any(axis=1).sum())
        thresholds = read_from_model(mixed.root / f"models/{task}.keras").thresholds
        assert (thresholds is not None) == (kind == "multilabel")
    assert verdict["ave_acc"] == verdict["tasks"]["shape"]["acc"]
    assert verdict["ave_skill"] == pytest.approx(np.mean([judged["skill"] for judged in verdict["tasks"].values()]))
    plots = mixed.root / "metrics/plots"
    assert {name: {path.stem for path in (plots / name).iterdir()} for name in paths.TABLES} == TABLES
    for name, header in paths.TABLES.items():
        assert {path.read_text().splitlines()[0] for path in (plots / name).iterdir()} == {header}
    assert {f"{task}_mistakes" for task in TASKS} <= {path.stem for path in (plots / "gallery").iterdir()}
    shown = mixed.run("dvc", "plots", "show", "--json")
    drawn = json.loads(shown.stdout)
    assert "failed" not in shown.stderr.lower() and not drawn.get("errors")
    tables = {f"metrics/plots/{name}/{task}.csv" for name, of_tasks in TABLES.items() for task in of_tasks}
    assert drawn["data"].keys() >= tables | {f"metrics/plots/{task}_history.csv" for task in TASKS}


@pytest.mark.slow
def test_the_runs_in_mlflow_have_the_figures(mixed):
    mlflow.set_tracking_uri(f"sqlite:///{mixed.root / 'mlflow.db'}")
    verdict = json.loads((mixed.root / "metrics/main_evaluate.json").read_text())
    runs = {}
    for experiment in mlflow.search_experiments():
        for run in mlflow.MlflowClient().search_runs([experiment.experiment_id]):
            runs[experiment.name.rpartition("/")[2]] = run.data.metrics
    for task in TASKS:
        primary = PRIMARY[kind_of(task)]
        assert f"test_{primary}" in runs[task] and "val_loss" in runs[task]
        for name in FIGURES[kind_of(task)] | {f"{primary}_low", f"{primary}_high"}:
            assert runs["main_evaluate"][f"tasks.{task}.{name}"] == pytest.approx(verdict["tasks"][task][name])


@pytest.mark.slow
def test_a_value_is_learned_to_the_same_bytes_and_a_changed_column_retrains_its_tasks_alone(mixed, tmp_path):
    project = mixed.copy(tmp_path / "p")
    project.environment = mixed.environment | {"PYTHONPATH": str(project.root / "src")}
    before = outputs(project, "area")
    done = project.run("dvc", "repro", "-f", "-s", "train@area")
    assert "Epoch 1/" in done.stdout and outputs(project, "area") == before

    write_table(project.root / "data/external", more=1)
    project.run("dvc", "add", "-q", "data/external")
    again = ran(project.run("dvc", "repro").stdout)
    assert again == {"load_data", "derive_labels", "train@area", "main_evaluate"}
    assert outputs(project, "area") != before


@pytest.mark.slow
def test_the_gate_asks_for_a_score_of_a_value_and_the_champion_is_loaded_elsewhere(mixed, tmp_path):
    project = mixed.copy(tmp_path / "p")
    project.environment = mixed.environment | {"PYTHONPATH": str(project.root / "src")}
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "mixed")
    project.edit(lambda tree: tree["promote"]["minimum"]["size"].update(r2=1.0))
    refused = project.run("mtl", "promote", "--allow-dirty", check=False)
    assert refused.returncode == 1
    assert "size: r2" in refused.stderr.splitlines()[-1]
    project.edit(lambda tree: tree["promote"]["minimum"]["size"].update(r2=-1.0))
    assert "is @champion now" in project.run("mtl", "promote").stdout
    code = """
import mlflow, numpy as np
answers = mlflow.pyfunc.load_model("models:/joint@champion").predict(np.load("data/raw/images/x_test.npy"))
print(sorted(answers.columns))
"""
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{project.root}/mlflow.db"}
    columns = project.run("python", "-c", code, **store).stdout
    assert {"shape", "flags_red", "tags_big", "size", "area"} <= {*ast.literal_eval(columns.splitlines()[-1])}


def test_a_table_of_no_task_is_an_empty_one(done):
    folders = {name: {path.stem for path in (done.root / "metrics/plots" / name).iterdir()} for name in paths.TABLES}
    assert {name for name, files in folders.items() if "empty" in files} == {"per_label", "values"}
    assert all(len(folders[name]) == 1 for name in ("per_label", "values"))
    for name in ("per_label", "values"):
        assert (done.root / f"metrics/plots/{name}/empty.csv").read_text() == f"{paths.TABLES[name]}\n"
