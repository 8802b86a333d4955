"""`mlflow run .`: the entry points of MLproject, with parameters that change what they say and nothing else."""

from __future__ import annotations

import json

import mlflow
import pytest
import yaml
from conftest import ROOT, Project

from mtl.commands import mlproject
from mtl.config import params
from mtl.errors import UserError

SETTINGS = params.read(ROOT / "params.yaml")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("", "", 0), []),
        (("", "compact", SETTINGS.recipes["compact"].epochs), ["tasks.model2.recipe=compact"]),
        (("", "", 2), ["recipes.compact.epochs=2", "recipes.brief.epochs=2"]),
        (("model2", "", 2), ["recipes.brief.epochs=2"]),
        (("model2", "article_binary", 0), ["tasks.model2.recipe=article_binary"]),
        (
            ("", "article_binary", 3),
            [
                "tasks.model1.recipe=article_binary",
                "tasks.model2.recipe=article_binary",
                "recipes.article_binary.epochs=3",
            ],
        ),
    ],
)
def test_only_what_differs_is_changed(arguments, expected):
    assert mlproject.changes(SETTINGS, *arguments) == expected


def test_an_unknown_task_or_recipe_is_named_with_those_there_are():
    with pytest.raises(UserError, match=r"model9.*model1, model2"):
        mlproject.changes(SETTINGS, "model9", "", 0)
    with pytest.raises(UserError, match=r"huge.*compact"):
        mlproject.changes(SETTINGS, "", "huge", 0)


def test_the_files_that_the_environment_names_exist():
    environment = yaml.safe_load((ROOT / "python_env.yaml").read_text())
    for dependency in environment["dependencies"]:
        assert (ROOT / dependency.split()[1]).is_file()
    assert (ROOT / yaml.safe_load((ROOT / "MLproject").read_text())["python_env"]).is_file()


def test_a_bad_parameter_ends_the_run_in_one_line(done: Project, tmp_path):
    copy = done.copy(tmp_path / "p")
    failed = copy.run("mlflow", "run", ".", "--env-manager", "local", "-P", "recipe=huge", check=False)
    assert failed.returncode != 0
    (line,) = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert "huge" in line and "compact" in line


@pytest.mark.slow
def test_mlflow_run_runs_the_stages_as_runs_of_their_own(done: Project, tmp_path):
    copy = done.copy(tmp_path / "p")
    run = ("mlflow", "run", ".", "--env-manager", "local")
    copy.run(*run, "-e", "train", "-P", "task=model2", "-P", "epochs=3")
    copy.run(*run, "-e", "evaluate")
    assert copy.lock()["stages"]["train@model2"]["params"]["params.yaml"]["recipes.compact"]["epochs"] == 3
    assert copy.lock()["stages"]["train@model1"] == done.lock()["stages"]["train@model1"]
    copy.run(*run, "-P", "epochs=2", "-P", "recipe=compact")
    assert copy.lock()["stages"]["train@model2"] == done.lock()["stages"]["train@model2"]
    verdict = json.loads((copy.root / "metrics/main_evaluate.json").read_text())
    assert verdict == json.loads((done.root / "metrics/main_evaluate.json").read_text())
    client = mlflow.MlflowClient(f"sqlite:///{copy.root / 'mlflow.db'}")
    started = {e.name: len(client.search_runs([e.experiment_id])) for e in client.search_experiments()}
    assert started["Default"] == 3  # what `mlflow run` opens itself, with the parameters given
    assert started["model2"] == 2
    assert started["main_evaluate"] == 2
