"""From what dvc.lock holds to the MLflow runs that made it, their models and versions, and back to the images."""

from __future__ import annotations

import json

import pytest
from click import Command
from click.testing import CliRunner
from conftest import Project
from mlflow import MlflowClient

from mtl.commands import runs, uri
from mtl.errors import UserError
from mtl.tracking import provenance


def client(project: Project) -> MlflowClient:
    return MlflowClient(f"sqlite:///{project.root / 'mlflow.db'}")


def mtl(project: Project, command: Command, *arguments: str) -> str:
    """What a command prints in the project's folder; in this process, which has MLflow and DVC already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.root)
        for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT"):
            patch.delenv(name, raising=False)
        return CliRunner().invoke(command, arguments, catch_exceptions=False).stdout


def rows(project: Project, *options: str) -> dict[str, dict]:
    return {row["out"]: row for row in json.loads(mtl(project, runs.command, "--json", *options))}


@pytest.fixture(scope="module")
def registered(done: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project after `dvc repro`, with its model2 and its joint model registered."""
    project = done.copy(tmp_path_factory.mktemp("registered") / "p")
    project.environment = done.environment | {"PYTHONPATH": str(project.root / "src")}
    store = client(project)
    for name in ("model2", "joint"):
        address = mtl(project, uri.command, name).strip()
        model = store.get_logged_model(address.removeprefix("models:/"))
        store.create_registered_model(name)
        store.create_model_version(name, address, model.source_run_id, model_id=model.model_id)
        store.set_registered_model_alias(name, "champion", "1")
    return project


def test_every_out_leads_to_the_run_that_made_it(registered):
    store, lock, found = client(registered), registered.lock()["stages"], rows(registered)
    outs = {out["path"]: (stage, out["md5"]) for stage, entry in lock.items() for out in entry["outs"]}
    assert {path: (row["stage"], row["md5"]) for path, row in found.items()} == outs
    commit = registered.run("git", "rev-parse", "HEAD~1").stdout.strip()
    assert "run" not in found.pop("data/tasks.json")  # that of check_params, which logs none
    for path, row in found.items():
        run = store.get_run(row["run"])
        assert run.data.tags[f"out.{path}"] == row["md5"]
        assert (run.data.tags["stage"], row["git_commit"], row["git_dirty"]) == (row["stage"], commit, False)
        assert (row["dataset"], row["dataset_md5"]) == ("external", outs["data/raw/images"][1])
        assert row["params"] == run.data.params
    assert found["models/model2.keras"]["params"]["recipe.epochs"] == "2"
    assert found["models/model2.keras"]["versions"] == ["model2/1 @champion"]
    assert found["metrics/main_evaluate.json"]["versions"] == ["joint/1 @champion"]
    assert found["models/model1.keras"]["versions"] == []


def test_the_table_has_a_line_per_out_and_the_parameters_of_each_run(registered):
    said, found = mtl(registered, runs.command), rows(registered)
    table, *parameters = said.split("\n\n")
    lines = table.splitlines()[1:]
    assert [line.split()[0] for line in lines] == list(found)
    assert [line.split()[3] for line in lines] == [row.get("run", "-")[:8] for row in found.values()]
    (line,) = [line for line in lines if line.startswith("models/model2.keras")]
    assert line.endswith("model2/1 @champion")
    assert len(parameters) == len({row["run"] for row in found.values() if "run" in row})
    assert "recipe.batch_size=32" in said


def test_a_task_leads_to_its_model(registered):
    store, found = client(registered), rows(registered)
    for name, out in (("model1", "models/model1.keras"), ("joint", "metrics/main_evaluate.json")):
        address = mtl(registered, uri.command, name).strip()
        assert address == found[out]["model"]
        assert store.get_logged_model(address.removeprefix("models:/")).source_run_id == found[out]["run"]
    failed = registered.run("mtl", "uri", "model3", check=False)
    assert failed.returncode == 1
    assert failed.stderr == "error: there is no model 'model3'; known: model1, model2, joint\n"


def test_a_version_leads_back_to_the_raw_images(registered):
    said = mtl(registered, runs.command, "--tree", "model2@champion").splitlines()
    assert [(len(line) - len(line.lstrip()), line.split()[0]) for line in said] == [
        (0, "model2@champion"),
        (2, "data/labels/model2"),
        (4, "data/raw/columns"),
        (6, "data/external"),
        (6, "data/shifted"),
        (4, "data/raw/shifted"),
        (6, "data/external"),
        (6, "data/shifted"),
        (4, "data/tasks.json"),
        (2, "data/raw/images"),
        (4, "data/external"),
        (4, "data/shifted"),
    ]
    assert " of derive_labels, commit " in said[1]


def test_the_joint_version_leads_to_the_run_of_every_model(registered):
    said = mtl(registered, runs.command, "--tree", "joint/1").splitlines()
    read = {line.split()[0]: line for line in said if line.startswith("  ") and line[2] != " "}
    raw, labels = {"data/raw/columns", "data/raw/images", "data/raw/shifted"}, {"data/labels", "data/labels_shifted"}
    assert set(read) == {*raw, *labels, "models/model1.keras", "models/model2.keras"}
    found = rows(registered)
    for path, line in read.items():
        assert f"<- run {found[path]['run'][:8]} of " in line


def test_what_dvc_restored_leads_to_the_run_that_made_it_and_a_revision_to_its_own(done: Project, tmp_path):
    project = done.copy(tmp_path / "p")
    project.environment = done.environment | {"PYTHONPATH": str(project.root / "src")}
    made = rows(project)["data/labels"]
    project.edit(lambda tree: tree["tasks"]["model2"]["labels"].update(bird=["bird"]) or _without_bird(tree))
    project.run("dvc", "repro", "-q", "-s", "derive_labels")
    project.run("git", "commit", "-qam", "birds")
    birds = rows(project)["data/labels"]
    project.run("git", "checkout", "-q", "HEAD~1", "--", "params.yaml")
    project.run("dvc", "repro", "-q", "-s", "derive_labels")
    assert rows(project)["data/labels"] == made
    assert rows(project, "--rev", "HEAD")["data/labels"] == birds
    assert birds["run"] != made["run"]
    (experiment,) = [e for e in client(project).search_experiments() if e.name == "derive_labels"]
    assert len(client(project).search_runs([experiment.experiment_id])) == 2


def _without_bird(tree: dict) -> None:
    tree["tasks"]["model2"]["labels"]["animal"].remove("bird")


def test_a_clone_without_the_runs_says_so(done: Project, tmp_path):
    project = done.copy(tmp_path / "p")
    (project.root / "mlflow.db").unlink()
    for command in ([runs.command], [uri.command, "model1"]):
        with pytest.raises(UserError, match=r"^there is no mlflow.db here: no run was logged in this folder yet"):
            mtl(project, *command)
    assert not (project.root / "mlflow.db").exists()


@pytest.mark.parametrize("content", ["", "[", "stages: 1", "a: 1", "stages: {a: {outs: [1]}}"])
def test_a_broken_lock_file_is_said_to_be_one(tmp_path, monkeypatch, content):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\nno_scm = true\n")
    (tmp_path / "dvc.lock").write_text(content)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^dvc\.lock is (empty|not what DVC writes).*: remove it"):
        provenance.outs()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--rev", "nothing"],
            "dvc.lock at nothing cannot be read: unknown Git revision 'nothing'; give another",
        ),
        (["--tree", "model2"], "'model2' is no version of a model; give <name>/<number> or <name>@<alias>"),
        (["--tree", "model2/7"], "model2 has no version '7'; known: 1"),
        (["--tree", "model2@loser"], "model2 has no alias 'loser'"),
        (["--tree", "model2/one"], "'model2/one' is no version of a model"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(registered, options, said):
    with pytest.raises(UserError) as failed:
        mtl(registered, runs.command, *options)
    assert said in str(failed.value)
    assert "\n" not in str(failed.value)
