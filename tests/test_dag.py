"""The whole DAG in a temporary clone: what it writes, what reruns when, and that it is the same to the byte."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import mlflow
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from conftest import CIFAR10, ROOT, Project
from ruamel.yaml import YAML

from mtl import lineage
from mtl.data import backend

FLIES = {"labels": {"yes": ["airplane", "bird"], "no": [c for c in CIFAR10 if c not in ("airplane", "bird")]}}


def changed(project: Project, *targets: str) -> set[str]:
    """The stages that would rerun because something they declare changed (not: because of a stage before them)."""
    return set(json.loads(project.run("dvc", "status", "--json", *targets).stdout))


def ran(output: str) -> set[str]:
    """The stages that a `dvc repro` ran, from what it printed."""
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}


def test_the_dag_writes_what_the_design_says(done):
    raw, labels = done.root / "data/raw", done.root / "data/labels/model1"
    for split, count in (("train", 100), ("validation", 20), ("test", 40)):
        x = np.load(raw / f"images/x_{split}.npy", allow_pickle=False)
        y = np.load(labels / f"y_{split}.npy", allow_pickle=False)
        assert (x.shape, x.dtype, y.shape, y.dtype) == ((count, 12, 12, 3), np.uint8, (count,), np.uint8)
        assert np.bincount(y).tolist() == [count / 10] * 10
    dataset = json.loads((raw / "columns/dataset.json").read_text())
    assert (dataset["official"], dataset["train"], dataset["validation"], dataset["test"]) == ({}, 100, 20, 40)
    columns = pq.read_table(raw / "columns/columns.parquet")
    assert (columns.column_names, columns.num_rows) == (["split", "class"], 160)
    task = json.loads((done.root / "data/labels/model2/task.json").read_text())
    assert (task["names"], task["groups"]["cat"]) == (["animal", "vehicle"], "animal")
    with zipfile.ZipFile(done.root / "models/model2.keras") as archive:
        told = json.loads(archive.read("metadata.json"))["task"]
        assert {key: value for key, value in told.items() if key != "temperature"} == task
    for task in ("model1", "model2"):
        metrics = json.loads((done.root / f"metrics/{task}.json").read_text())
        figures = {f"{split}_{kind}" for split in ("train", "val", "test") for kind in ("loss", "acc")}
        assert set(metrics) - {"calibration"} == {*figures, "precision"}
        assert metrics["precision"] == ("float32" if backend.native_bfloat16() is False else "mixed_bfloat16")
        history = (done.root / f"metrics/plots/{task}_history.csv").read_text().splitlines()
        assert history[0] == "epoch,acc,loss,val_acc,val_loss"
        assert len(history) == 3
    verdict = json.loads((done.root / "metrics/main_evaluate.json").read_text())
    per_task = [json.loads((done.root / f"metrics/model{n}.json").read_text()) for n in (1, 2)]
    assert verdict["sum_loss"] == pytest.approx(sum(task["test_loss"] for task in per_task), rel=1e-5)
    assert verdict["ave_acc"] == pytest.approx(sum(task["test_acc"] for task in per_task) / 2)
    assert verdict["derived"]["model2"]["from"] == "model1"
    assert set(verdict["derived"]) == {"model2"}  # nothing implies model1


def test_git_is_clean_of_data_and_dvc_has_nothing_to_do(done):
    assert done.run("git", "status", "--porcelain").stdout == ""
    tracked = done.run("git", "ls-files").stdout.split()
    # Pictures are in docs alone, where they are made on generated images.
    found = [name for name in tracked if name.endswith((".npy", ".keras", ".png", ".jpg", ".db"))]
    assert all(name.startswith("docs/") and name.endswith(".png") for name in found)
    assert "up to date" in done.run("dvc", "status").stdout


# One value of each section of params.yaml -> the stages that declare it, besides check_params.
CHANGES = {
    "seed": (lambda t: t.update(seed=1), {"load_data", "train@model1", "train@model2"}),
    "data": (lambda t: t["data"].update(validation=30), {"load_data"}),
    "tasks": (
        lambda t: t["tasks"]["model2"]["labels"].update(animal=["bird"], other=["cat", "deer", "dog", "frog", "horse"]),
        {"derive_labels", "main_evaluate"},
    ),
    "hardware": (lambda t: t["hardware"].update(threads=2), {"train@model1", "train@model2", "main_evaluate"}),
    "recipe in use": (
        lambda t: t["recipes"]["compact"].update(epochs=1),
        {"train@model1", "train@model2"},
    ),
    "recipe of one task": (
        lambda t: t["tasks"]["model2"].update(recipe="article_binary"),
        {"derive_labels", "train@model2", "main_evaluate"},
    ),
    "recipe not in use": (lambda t: t["recipes"]["article_binary"].update(epochs=1), set()),
    "gate of mtl promote": (lambda t: t["promote"].update(contradictions=0.5), set()),
}


@pytest.mark.parametrize("section", CHANGES)
def test_a_changed_value_reruns_the_stages_that_declare_it(done, section):
    change, expected = CHANGES[section]
    before = (done.root / "params.yaml").read_text()
    try:
        done.edit(change)
        assert changed(done) == expected | {"check_params"}
    finally:
        (done.root / "params.yaml").write_text(before)


def test_a_third_task_trains_itself_and_nothing_else(done, tmp_path):
    project = done.copy(tmp_path / "p")
    project.edit(lambda tree: tree["tasks"].update(flies=FLIES | {"recipe": "compact"}))
    output = project.run("dvc", "repro").stdout
    assert ran(output) == {"check_params", "derive_labels", "train@flies", "main_evaluate"}
    verdict = json.loads((project.root / "metrics/main_evaluate.json").read_text())
    assert set(verdict["tasks"]) == {"model1", "model2", "flies"}
    assert set(verdict["derived"]) == {"model2", "flies"}
    tables, pictures = (project.root / "metrics/plots" / name for name in ("confusion", "gallery"))
    assert (tables / "flies.csv").exists()
    assert (pictures / "flies_contradictions.png").exists()
    # Taken away again, all that it left is removed, although every other stage comes out of the run cache.
    project.edit(lambda tree: tree["tasks"].pop("flies"))
    output = project.run("dvc", "repro").stdout
    assert ran(output) == {"check_params"}
    assert not [
        path for folder in ("models", "metrics", "data/labels") for path in (project.root / folder).rglob("*flies*")
    ]
    assert project.run("git", "status", "--porcelain", "models", "metrics", "data").stdout == ""
    assert changed(project) == set()
    assert json.loads((project.root / "metrics/main_evaluate.json").read_text()) == json.loads(
        (done.root / "metrics/main_evaluate.json").read_text()
    )


@pytest.mark.slow
def test_a_second_forced_run_leaves_the_same_lock(done, tmp_path):
    project = done.copy(tmp_path / "p")
    project.run("dvc", "repro", "--force", "-q", DVC_EXP_NAME="another-name")
    assert project.lock() == done.lock()


def wait_for(condition, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def trainings(project: Project) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        if process.info["cwd"] == str(project.root) and "src/train.py" in (process.info["cmdline"] or []):
            found.append(process)
    return found


@pytest.mark.slow
def test_a_killed_training_leaves_no_orphan_and_ends_the_same(done, tmp_path):
    project = done.copy(tmp_path / "p")
    project.edit(lambda tree: tree["recipes"]["compact"].update(epochs=40))
    whole = project.copy(tmp_path / "whole")
    whole.run("dvc", "repro", "-q", "-s", "train@model1")

    command = ["dvc", "repro", "-q", "-s", "train@model1"]
    state = project.root / ".checkpoints" / "model1" / "state.json"
    dvc = subprocess.Popen(command, cwd=project.root, env=project.environment)
    wait_for(state.exists)
    (training,) = trainings(project)
    training.suspend()  # however fast the machine, it is not over before DVC is gone
    dvc.send_signal(signal.SIGKILL)
    dvc.wait()
    training.resume()
    wait_for(lambda: not trainings(project))
    assert len(json.loads(state.read_text())["history"]) < 40
    assert "goes on after epoch" in project.run("dvc", "repro", "-s", "train@model1").stdout
    model = "models/model1.keras"
    assert (project.root / model).read_bytes() == (whole.root / model).read_bytes()
    assert project.lock() == whole.lock()


def test_what_the_environment_changes_is_set_or_noted(done, tmp_path):
    project = done.copy(tmp_path / "p")
    model = project.root / "models/model1.keras"
    written = model.read_bytes()
    train = ["python", "src/train.py", "model1"]
    (tmp_path / "keras").mkdir()
    (tmp_path / "keras/keras.json").write_text(
        '{"floatx": "float64", "epsilon": 0.1, "backend": "jax", "image_data_format": "channels_first"}'
    )
    ours = {"KERAS_HOME": str(tmp_path / "keras"), "KERAS_BACKEND": "torch", "KERAS_MAX_EPOCHS": "1"}
    ours |= {"TF_NUM_INTRAOP_THREADS": "2", "TF_DETERMINISTIC_OPS": "0", "TF_TOKEN_example_org": "Terraform's"}
    first = project.run(*train, **ours)
    assert model.read_bytes() == written
    assert "environment" not in first.stdout
    second = project.run(*train, TF_ENABLE_ONEDNN_OPTS="0", ONEDNN_MAX_CPU_ISA="SSE41")
    (line,) = (line for line in second.stdout.splitlines() if "environment" in line)
    assert "ONEDNN_MAX_CPU_ISA=SSE41, TF_ENABLE_ONEDNN_OPTS=0" in line
    (run,) = (run for _, run in search(project, "tags.`environment.TF_ENABLE_ONEDNN_OPTS` = '0'").iterrows())
    assert (run.experiment, run["tags.environment.ONEDNN_MAX_CPU_ISA"]) == ("model1", "SSE41")


@pytest.mark.slow
def test_a_stage_killed_before_dvc_recorded_it_does_not_train_again(done, tmp_path):
    project = done.copy(tmp_path / "p")
    project.edit(lambda tree: tree["recipes"]["compact"].update(epochs=3))
    # The script as DVC starts it; DVC is gone before it writes dvc.lock.
    project.run("python", "src/train.py", "model1", DVC_STAGE="train@model1", DVC_ROOT=str(project.root))
    model, state = (project.root / name for name in ("models/model1.keras", ".checkpoints/model1"))
    written = model.read_bytes()
    again = project.run("dvc", "repro", "-s", "train@model1").stdout
    assert "Epoch 1/3" not in again
    assert model.read_bytes() == written
    second, first = (run for _, run in search(project, "params.`recipe.epochs` = '3'").iterrows())
    assert (first.status, second.status) == ("FINISHED", "FINISHED")
    assert second["tags.repeats_run"] == first.run_id
    assert first.run_id[:8] in again
    assert second["tags.resumed_after_epoch"] == "3"
    # It is recorded by now: forced, it trains; and what comes after it removes the state.
    assert "Epoch 1/3" in project.run("dvc", "repro", "-f", "-s", "train@model1").stdout
    assert state.exists()
    project.run("dvc", "repro", "-q", "-f", "-s", "main_evaluate")
    assert not state.exists()


def test_a_loss_of_nan_stops_the_stage_and_the_last_model_is_back(done, tmp_path):
    project = done.copy(tmp_path / "p")
    before = (project.root / "models/model1.keras").read_bytes()
    project.edit(lambda tree: tree["recipes"]["compact"]["optimizer"].update(learning_rate=1e30))
    failed = project.run("dvc", "repro", "-s", "train@model1", check=False)
    assert failed.returncode != 0
    assert "loss became nan" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert (project.root / "models/model1.keras").read_bytes() == before
    assert project.run("git", "status", "--porcelain", "metrics").stdout == ""


@pytest.mark.slow
def test_an_experiment_in_a_temporary_folder_finds_data_and_store(done, tmp_path):
    """`--temp` has no untracked files: DVC has the images, and the MLflow store is in the parent repository."""
    project = done.copy(tmp_path / "p")
    name = ["-n", "in-temp"]
    project.run("dvc", "exp", "run", "--temp", *name, "-S", "recipes.compact.epochs=1", "-S", "data.validation=30")
    shown = json.loads(project.run("dvc", "exp", "show", "--json").stdout)
    assert "in-temp" in json.dumps(shown)
    runs = search(project, "tags.DVC_EXP_NAME = 'in-temp'")
    assert set(runs.experiment) == EXPERIMENTS


EXPERIMENTS = {"load_data", "derive_labels", "model1", "model2", "main_evaluate"}


def search(project: Project, query: str = ""):
    """The runs in the project's own store, with the name of their experiment."""
    mlflow.set_tracking_uri(f"sqlite:///{project.root / 'mlflow.db'}")
    names = {e.experiment_id: e.name for e in mlflow.search_experiments() if e.name != "Default"}
    runs = mlflow.search_runs(list(names), filter_string=query)
    return runs.assign(experiment=runs.experiment_id.map(names))


def test_every_stage_is_a_run_of_its_own_experiment(done):
    runs = search(done).set_index("experiment")
    assert sorted(runs.index) == sorted(EXPERIMENTS)
    assert set(runs.status) == {"FINISHED"}
    lock = done.lock()["stages"]
    for task in ("model1", "model2"):
        run = runs.loc[task]
        metrics = json.loads((done.root / f"metrics/{task}.json").read_text())
        for name in ("test_loss", "test_acc"):
            assert run[f"metrics.{name}"] == pytest.approx(metrics[name])
        assert run["metrics.fit_seconds"] > 0
        assert run["metrics.images_per_second"] > 0
        assert run["params.recipe.epochs"] == "2"
        assert run["params.seed"] == "0"
        for kind in ("deps", "outs"):
            for item in lock[f"train@{task}"][kind]:
                assert run[f"tags.{kind[:-1]}.{item['path']}"] == item["md5"]
        assert "tags.dep.params.yaml" not in run.dropna()
        assert len(run["tags.git_commit"]) == 40
        history = mlflow.MlflowClient().get_metric_history(run.run_id, "val_acc")
        assert [m.step for m in history] == [1, 2]
    for name in ("sum_loss", "ave_acc", "tasks.model1.nll", "derived.model2.acc", "contradiction_rate"):
        assert np.isfinite(runs.loc["main_evaluate"][f"metrics.{name}"])


def test_the_way_from_the_lock_to_a_run_is_the_md5_of_its_output(done):
    (out,) = [o for o in done.lock()["stages"]["train@model2"]["outs"] if o["path"] == "models/model2.keras"]
    runs = search(done, f"tags.`out.models/model2.keras` = '{out['md5']}'")
    assert runs.experiment.tolist() == ["model2"]
    (used,) = mlflow.get_run(runs.run_id[0]).inputs.dataset_inputs
    (images,) = [o for o in done.lock()["stages"]["load_data"]["outs"] if o["path"] == "data/raw/images"]
    assert used.dataset.digest == images["md5"]


def test_logged_models_answer_as_the_saved_ones(done, tensorflow):
    runs = search(done).set_index("experiment")
    x = np.load(done.root / "data/raw/images/x_test.npy", allow_pickle=False)[:6]
    task = mlflow.pyfunc.load_model(f"runs:/{runs.loc['model2'].run_id}/model")
    assert task.metadata.metadata["task"]["names"] == ["animal", "vehicle"]
    assert task.metadata.signature.inputs.inputs[0].type == np.dtype("uint8")
    probabilities = task.predict(x)
    joint = mlflow.pyfunc.load_model(f"runs:/{runs.loc['main_evaluate'].run_id}/joint").predict(x)
    named = [["animal", "vehicle"][index] for index in probabilities.argmax(axis=1)]
    assert joint["model2"].tolist() == named
    np.testing.assert_allclose(joint["model2_probability"], probabilities.max(axis=1), rtol=1e-5)
    assert set(joint["model1"]) <= set(CIFAR10)


def test_the_run_id_of_mlflow_run_does_not_swallow_the_stages(done, tmp_path):
    """`mlflow run` hands its own run to what it starts; every stage still opens its own."""
    project = done.copy(tmp_path / "p")
    environment = {"MLFLOW_RUN_ID": "0" * 32, "MLFLOW_EXPERIMENT_ID": "0", "MLFLOW_EXPERIMENT_NAME": "Default"}
    project.run("dvc", "repro", "-f", "-s", "derive_labels", **environment)
    assert search(project).experiment.value_counts()["derive_labels"] == 2


# Values are tracked as parameters; what MLflow and TensorBoard are told is no output.
NO_BYTES = {"config", "errors", "lineage", "tracking"}


def test_what_a_stage_in_the_lock_newly_declares_has_its_md5_too(done, tmp_path, monkeypatch):
    project = done.copy(tmp_path / "p")
    monkeypatch.chdir(project.root)
    declared = (
        (project.root / "dvc.yaml")
        .read_text()
        .replace("- src/mtl/stages/derive_labels.py", "- src/mtl/stages/derive_labels.py\n      - LICENSE")
    )
    (project.root / "dvc.yaml").write_text(declared)
    found = lineage.hashes("derive_labels", "deps")
    assert found["LICENSE"] == hashlib.md5((project.root / "LICENSE").read_bytes()).hexdigest()


def test_git_is_dirty_by_what_a_person_changed_alone(done, tmp_path, monkeypatch):
    project = done.copy(tmp_path / "p")
    monkeypatch.chdir(project.root)
    (project.root / "metrics/model1.json").write_text("{}")
    (project.root / "dvc.lock").write_text("")
    (project.root / "data/external.dvc").write_text("")
    assert lineage.git()["git_dirty"] == "false"
    (project.root / "params.yaml").write_text("")
    assert lineage.git()["git_dirty"] == "true"


def imported(path: Path, seen: set[Path]) -> set[Path]:
    """The modules of the project that a file imports, anywhere in it and through others but NO_BYTES."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "mtl":
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            module = ROOT / "src" / Path(*name.split("."))
            for file in (module.with_suffix(".py"), module / "__init__.py"):
                if name.startswith("mtl.") and file.exists() and file not in seen:
                    seen.add(file)
                    if room(file) not in NO_BYTES:
                        imported(file, seen)
    return seen


def room(module: Path) -> str:
    """The folder of src/mtl that a module is in, or its own name."""
    return module.relative_to(ROOT / "src/mtl").parts[0].removesuffix(".py")


def code(deps: list[str]) -> set[str]:
    """What a stage names of src/mtl, relative to it."""
    return {dep.removeprefix("src/mtl/") for dep in deps if dep.startswith("src/")}


@pytest.mark.parametrize("stage", ["check_params", "load_data", "derive_labels", "train", "main_evaluate"])
def test_all_that_a_stage_imports_lies_in_what_it_names(stage):
    declared = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"][stage]
    named = code(declared.get("do", declared)["deps"])
    own = ROOT / "src/mtl/stages" / f"{stage}.py"
    rooms = {room(path) for path in imported(own, set())} - NO_BYTES - {"__init__", "stages"}
    assert {name.removesuffix(".py") for name in named} == rooms | {f"stages/{stage}"}
    assert len(named) <= 6


def test_a_training_is_resumed_by_the_code_that_dvc_yaml_names(tensorflow):
    from mtl.training import fitting

    assert code(YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]["train"]["do"]["deps"]) == set(fitting.CODE)


@pytest.mark.parametrize("module", ["mtl.cli", "mtl.data.store", "mtl.sources", "mtl.tasks.grouping", "mtl.tracking"])
def test_slow_libraries_are_imported_where_they_are_used(module):
    code = f"import sys, {module}; sys.exit(bool({{'tensorflow', 'mlflow', 'dvc', 'keras'}} & set(sys.modules)))"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0
