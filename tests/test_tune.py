"""`mtl tune` as a person uses it: killed, run again, applied, reproduced; what MLflow holds of it afterwards."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess

import mlflow
import optuna
import pytest
from conftest import Project
from optuna.trial import TrialState
from ruamel.yaml import YAML
from servers import free_port

RATE = {"name": "optimizer.learning_rate", "type": "double", "min": 0.01, "max": 0.8, "scale": "log"}
# Half of the trials draw a value that the recipe refuses.
SMOOTHING = {"name": "label_smoothing", "type": "discrete", "values": [0.1, 1.5]}


def declare(project: Project, **changes) -> None:
    project.edit(lambda tree: tree["tune"].update(changes))


@pytest.fixture
def project(done: Project, tmp_path) -> Project:
    """A project whose study takes seconds."""
    project = done.copy(tmp_path / "p")
    project.environment = done.environment | {"PYTHONPATH": str(project.root / "src")}
    declare(project, epochs=2, images_per_epoch=64, max_trials=5, max_failed_trials=20, parallel_trials=1)
    declare(project, parameters=[RATE, SMOOTHING])
    return project


def trials(project: Project, study: str = "model1") -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=study, storage=f"sqlite:///{project.root}/tune.db").get_trials()


def comments(project: Project) -> list[str]:
    lines = (project.root / "params.yaml").read_text().splitlines()
    return [line.partition("#")[2] for line in lines if "#" in line]


@pytest.mark.slow
def test_killed_run_again_applied_and_reproduced(project: Project):
    killed = subprocess.Popen(
        ["mtl", "tune", "model1"], cwd=project.root, env=project.environment, stderr=subprocess.PIPE, text=True
    )
    assert any(line.startswith("trial 0: val_acc ") for line in killed.stderr)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    before = {trial.number: trial.value for trial in trials(project) if trial.state == TrialState.COMPLETE}
    assert 0 in before

    said = project.run("mtl", "tune", "model1", "--apply")
    after = trials(project)
    finished = [trial for trial in after if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert len(finished) == 5
    assert not [trial for trial in after if trial.state == TrialState.RUNNING]
    assert len({tuple(trial.params.values()) for trial in finished}) == 5
    assert all(after[number].value == value for number, value in before.items())
    refused = [trial for trial in after if trial.params.get("recipes.compact.label_smoothing") == 1.5]
    assert refused, "no trial drew the value that the recipe refuses"
    assert {trial.state for trial in refused} == {TrialState.FAIL}
    assert "recipes.compact.label_smoothing: must be below 1, not 1.5" in said.stdout

    # One run for the study, whoever ran it, and under it one per trial, each with parameters, curve and end.
    client = mlflow.MlflowClient(f"sqlite:///{project.root / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("tune").experiment_id], max_results=100)
    (parent,) = [run for run in runs if run.data.tags.get("kind") == "study"]
    children = {
        run.data.tags["trial"]: run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id
    }
    best = max((trial for trial in finished if trial.value is not None), key=lambda trial: (trial.value, -trial.number))
    assert parent.data.metrics["best_val_acc"] == best.value
    states = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED", TrialState.FAIL: "FAILED"}
    for trial in [*finished, *refused]:
        run = children[str(trial.number)]
        assert run.info.status == states[trial.state]
        for name, value in trial.params.items():
            assert run.data.params[name] == str(value)
        curve = client.get_metric_history(run.info.run_id, "val_acc")
        assert {point.step for point in curve} >= set(trial.intermediate_values)
        if trial.state != TrialState.COMPLETE:
            assert run.data.tags["reason"] == trial.user_attrs["reason"] != ""
    assert children[str(best.number)].data.params["recipe.optimizer.momentum"] == "0.6"
    pages = {page.path for page in client.list_artifacts(parent.info.run_id)}
    assert {"history.html", "parallel_coordinates.html", "slices.html", "trials.csv"} <= pages

    # What was applied is the best trial's, and nothing else in the file changed.
    params = YAML(typ="safe").load(project.root / "params.yaml")
    assert (
        params["recipes"]["compact"]["optimizer"]["learning_rate"]
        == best.params["recipes.compact.optimizer.learning_rate"]
    )
    assert params["recipes"]["compact"]["epochs"] == 2
    project.run("git", "stash", "-q")
    before_tuning = comments(project)
    project.run("git", "stash", "pop", "-q")
    assert comments(project) == before_tuning

    (line,) = [line for line in said.stdout.splitlines() if line.strip().startswith("dvc exp run")]
    project.run(*shlex.split(line))
    metrics = json.loads((project.root / "metrics/model1.json").read_text())
    assert metrics["val_acc"] == best.value


@pytest.mark.slow
def test_both_models_are_judged_together_and_a_grid_ends_with_its_points(project: Project):
    project.edit(lambda tree: tree["recipes"]["compact"].update(epochs=1))
    sizes = {"name": "batch_size", "type": "discrete", "values": [16, 32]}
    declare(project, algorithm="grid", epochs=1, early_stopping="none", parallel_trials=2, parameters=[sizes])
    said = project.run("mtl", "tune", "--joint")
    both = trials(project, "joint")
    assert [trial.params["recipes.compact.batch_size"] for trial in both] == [32, 16]
    # There is nothing left to do, and it says the same again.
    assert project.run("mtl", "tune", "--joint").stdout == said.stdout
    (line,) = [line for line in said.stdout.splitlines() if line.strip().startswith("dvc exp run")]
    project.run(*shlex.split(line))
    metrics = [json.loads((project.root / f"metrics/{task}.json").read_text()) for task in ("model1", "model2")]
    best = max(trial.value for trial in both)
    assert best == pytest.approx(sum(task["val_acc"] for task in metrics) / 2)


@pytest.mark.slow
def test_at_the_end_of_its_time_a_study_stops_and_goes_on_later(project: Project):
    declare(project, parameters=[RATE], max_trials=2, images_per_epoch=60)
    (project.root / "data/raw/images/x_test.npy").unlink()  # the test images are not opened
    stopped = project.run("mtl", "tune", "model1", "--timeout", "0.001", check=False)
    assert stopped.returncode == 1
    assert "Traceback" not in stopped.stdout + stopped.stderr
    assert "the time is up; the same command goes on" in stopped.stderr
    project.run("mtl", "tune", "model1")
    assert sum(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials(project)) == 2


@pytest.mark.slow
def test_ctrl_c_stops_a_study_in_postgresql_and_the_same_command_goes_on(project: Project, postgresql):
    declare(project, parameters=[RATE], max_trials=6)
    environment = project.environment | {"OPTUNA_STORAGE": postgresql}
    command = ["mtl", "tune", "model1", "--jobs", "2"]
    running = subprocess.Popen(command, cwd=project.root, env=environment, stderr=subprocess.PIPE, text=True)
    assert running.stderr.readline().startswith("trial ")
    running.send_signal(signal.SIGINT)
    said = running.communicate()[1]
    assert running.returncode == 130
    assert "SIGINT; the same command goes on" in said
    assert "Traceback" not in said
    project.run(*command, OPTUNA_STORAGE=postgresql)
    study = optuna.load_study(study_name="model1", storage=postgresql)
    states = [trial.state for trial in study.get_trials()]
    assert sum(state in (TrialState.COMPLETE, TrialState.PRUNED) for state in states) == 6
    assert TrialState.RUNNING not in states


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model3"], "error: params.yaml: there is no task 'model3'; known: model1, model2"),
        (["model1", "--name", "it's"], "error: --name \"it's\": a study's name is letters, digits"),
        (["model1", "--storage", "sqlite:////no/such/x.db"], "error: the storage sqlite:////no/such/x.db: "),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_study(done: Project, tmp_path, arguments, message):
    project = done.copy(tmp_path / "p")
    failed = project.run("mtl", "tune", *arguments, check=False)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith(message)
    assert "Traceback" not in failed.stderr
    assert not (project.root / "tune").exists()


def test_an_mlflow_server_that_is_away_stops_the_study_at_its_start(done: Project, tmp_path):
    project = done.copy(tmp_path / "p")
    uri = f"http://127.0.0.1:{free_port()}"
    failed = project.run("mtl", "tune", "model1", check=False, MLFLOW_TRACKING_URI=uri)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith(f"error: the MLflow tracking server {uri}: no answer")
    assert not (project.root / "tune").exists()
