"""What DVC sees: images under `dvc add`, in experiments and in clones without them, and parameters before all else."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Project
from PIL import Image
from ruamel.yaml import YAML
from test_dag import changed

from mtl import lineage


@pytest.fixture
def project(fresh: Project, tmp_path: Path) -> Project:
    """Small images, which `dvc repro` has put under DVC and loaded; nothing is trained."""
    return ready(fresh.copy(tmp_path / "p"))


def ready(project: Project) -> Project:
    """Run what comes before the trainings, and commit."""
    project.environment = project.environment | {"PYTHONPATH": str(project.root / "src")}
    project.run("dvc", "repro", "-q", "derive_labels")
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "loaded")
    return project


def add_images(project: Project, count: int, name: str) -> None:
    for index in range(count):
        path = project.root / f"data/external/test/cat/{name}{index}.png"
        Image.new("RGB", (12, 12), (index, 1, 2)).save(path)


def images_at(project: Project, rev: str) -> tuple[int, str, str]:
    """Of an experiment: the test images it loaded; the md5 of its images in dvc.lock and in data/external.dvc."""
    to = project.root / f"{rev}.json.tmp"
    project.run("dvc", "get", "-q", ".", "data/raw/columns/dataset.json", "--rev", rev, "-o", str(to))
    names = project.run("git", "for-each-ref", "--format=%(refname)").stdout.split()
    (ref,) = [name for name in names if name.endswith(f"/{rev}")]
    lock, images = (
        YAML(typ="safe").load(project.run("git", "show", f"{ref}:{name}").stdout)
        for name in ("dvc.lock", "data/external.dvc")
    )
    (dep,) = [dep for dep in lock["stages"]["load_data"]["deps"] if dep["path"] == "data/external"]
    return json.loads(to.read_text())["test"], dep["md5"], images["outs"][0]["md5"]


@pytest.mark.slow
def test_experiments_in_temporary_folders_see_added_images(project: Project) -> None:
    temporary = ("dvc", "exp", "run", "--temp", "derive_labels", "-n")
    for number, name in enumerate(("first", "second")):
        add_images(project, 5, name)
        project.run(*temporary, name)
        loaded, locked, tracked = images_at(project, name)
        assert loaded == 45 + 5 * number
        assert locked == tracked


@pytest.mark.slow
def test_what_an_experiment_trained_on_is_there_when_it_is_applied(done: Project, tmp_path: Path) -> None:
    project = done.copy(tmp_path / "p")
    for name in ("queued", "branched"):
        add_images(project, 5, name)
        project.run("dvc", "exp", "run", "--queue", "derive_labels", "-n", name)
    add_images(project, 5, "later")
    project.run("dvc", "exp", "run", "--run-all")
    project.run("dvc", "exp", "branch", "branched", "kept")
    assert [images_at(project, name)[0] for name in ("queued", "kept")] == [45, 50]
    project.run("dvc", "exp", "apply", "queued")
    assert len(list((project.root / "data/external/test/cat").iterdir())) == 9
    assert changed(project, "data/external.dvc", "load_data", "derive_labels") == set()


@pytest.mark.slow
def test_an_experiment_says_what_a_temporary_folder_lacks(project: Project, tmp_path: Path) -> None:
    mine = project.root / "data" / "mine"
    shutil.copytree(project.root / "data/external", mine)
    (mine / ".gitignore").write_text("*\n!.gitignore\n")
    project.edit(lambda tree: tree["data"].update(path="data/mine"))
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "images that git ignores")
    failed = project.run("dvc", "exp", "run", "--temp", "derive_labels", check=False)
    assert failed.returncode != 0
    assert "error: data/mine: " in failed.stderr
    assert "dvc add data/mine" in failed.stderr
    # Outside of the repository DVC hashes them where they are.
    elsewhere = tmp_path / "images"
    mine.rename(elsewhere)
    project.edit(lambda tree: tree["data"].update(path=str(elsewhere)))
    project.run("dvc", "exp", "run", "--temp", "derive_labels")


def test_a_link_to_a_folder_is_refused_before_anything_is_lost(project: Project) -> None:
    before = project.lock()["stages"]["load_data"]
    cat = project.root / "data/external/train/cat"
    cat.rename(project.root / "cat")
    cat.symlink_to(project.root / "cat")
    failed = project.run("dvc", "repro", "derive_labels", check=False)
    assert failed.returncode != 0
    (line,) = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert "data/external/train/cat" in line
    assert project.lock()["stages"]["load_data"] == before
    assert (project.root / "data/raw/columns/dataset.json").exists()


def reordered(tree: dict) -> None:
    labels = tree["tasks"]["model2"]["labels"]
    labels["animal"] = labels.pop("animal")


BAD: dict[str, tuple[Callable[[dict], object], str]] = {
    "unknown key": (lambda tree: tree.update(taks={}), "taks"),
    "no tasks": (lambda tree: tree.update(tasks=[]), "tasks"),
    "bad recipe that no task uses": (lambda tree: tree["recipes"]["article_binary"].update(epochs=0), "article_binary"),
    "too many held out": (lambda tree: tree["data"].update(validation=50_000), "data.validation"),
    "unknown class": (
        lambda tree: tree["tasks"]["model2"]["labels"].update(vehicle=["airplane", "automobile", "ship", "lorry"]),
        "lorry",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_nothing_is_lost_to_a_bad_value(done: Project, tmp_path: Path, fault: str) -> None:
    project = done.copy(tmp_path / "p")
    before = contents(project)
    change, name = BAD[fault]
    project.edit(change)
    quick = project.run("mtl", "repro", check=False)
    assert (quick.returncode, quick.stderr.count("\n"), name in quick.stderr) == (1, 1, True)
    assert project.run("git", "status", "--porcelain").stdout == " M params.yaml\n"  # nothing has run
    failed = project.run("dvc", "repro", check=False)
    assert failed.returncode != 0
    (line,) = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert name in line
    assert contents(project) == before


def contents(project: Project) -> dict[str, bytes]:
    """The outputs of all stages."""
    folders = (project.root / name for name in ("data/raw", "data/labels", "models", "metrics"))
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(project.root)): path.read_bytes() for path in files}


def test_values_are_compared_with_the_images_that_would_be_read(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not fit those in data/raw may fit others, which are there now or in another place."""
    monkeypatch.chdir(project.root)
    data = {"source": "folder", "path": "data/external", "size": None}
    assert lineage.loaded_from(data)
    assert not lineage.loaded_from(data | {"size": 32})
    assert not lineage.loaded_from(data | {"path": "elsewhere"})
    add_images(project, 1, "new")
    assert not lineage.loaded_from(data)


def test_the_order_of_groups_is_seen_and_that_of_tasks_is_not(project: Project) -> None:
    task = project.root / "data/labels/model2/task.json"
    project.edit(reordered)
    assert "'derive_labels'" in project.run("dvc", "repro", "derive_labels").stdout
    assert json.loads(task.read_text())["names"] == ["vehicle", "animal"]
    project.edit(lambda tree: tree["tasks"].update(model1=tree["tasks"].pop("model1")))
    output = project.run("dvc", "repro", "derive_labels").stdout
    assert [line for line in output.splitlines() if line.startswith("Running")] == ["Running stage 'check_params':"]


def test_what_a_stage_fails_with_comes_back_out_of_the_cache_as_files_of_their_own(
    done: Project, tmp_path: Path
) -> None:
    """Also where DVC links its cache, and for metrics, which git holds."""
    project = done.copy(tmp_path / "p")
    project.run("dvc", "config", "cache.type", "symlink")
    before = contents(project)
    project.edit(lambda tree: tree["recipes"]["compact"].update(network="nowhere:build"))
    assert project.run("dvc", "repro", "-s", "train@model1", check=False).returncode != 0
    assert contents(project) == before
    assert not (project.root / "metrics/model1.json").is_symlink()


@pytest.mark.slow
def test_a_clone_keeps_what_was_pulled_without_images(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = tmp_path / "remote"
    project.run("dvc", "remote", "add", "-q", "--default", "remote", str(remote))
    project.run("git", "commit", "-qam", "remote")
    project.run("dvc", "push", "-q", "check_params", "load_data", "derive_labels")
    clone = Project(tmp_path / "clone", project.environment | {"PYTHONPATH": str(tmp_path / "clone/src")})
    subprocess.run(["git", "clone", "-q", project.root, clone.root], check=True, env=project.environment)
    clone.run("dvc", "pull", "-q", "check_params", "load_data", "derive_labels")
    before = contents(clone)
    for command in (("dvc", "repro", "derive_labels"), ("mtl", "repro", "derive_labels")):
        failed = clone.run(*command, check=False)
        assert failed.returncode != 0
        assert "data/external" in failed.stderr
        assert "Traceback" not in failed.stderr
        assert contents(clone) == before
    assert "--allow-missing" in failed.stderr
    monkeypatch.chdir(clone.root)
    assert lineage.is_current("load_data")  # so that `mtl run` fetches nothing
    clone.run("dvc", "repro", "--allow-missing", "derive_labels")
    assert clone.run("git", "status", "--porcelain").stdout == ""
    # Where the images would be read, nothing is removed before that fails; what is learnt from them can be changed.
    clone.edit(lambda tree: tree["data"].update(validation=30))
    assert clone.run("dvc", "repro", "--allow-missing", "derive_labels", check=False).returncode != 0
    assert contents(clone) == before
    clone.run("git", "checkout", "-q", ".")
    clone.edit(reordered)
    clone.run("mtl", "repro", "--allow-missing", "derive_labels")
    assert json.loads((clone.root / "data/labels/model2/task.json").read_text())["names"] == ["vehicle", "animal"]
    assert (clone.root / "data/raw/images/x_train.npy").read_bytes() == before["data/raw/images/x_train.npy"]


@pytest.mark.slow
def test_a_renamed_task_leaves_nothing_and_a_clone_is_up_to_date(done: Project, tmp_path: Path) -> None:
    project = done.copy(tmp_path / "p")
    project.edit(lambda tree: tree["tasks"].update(other=tree["tasks"].pop("model2")))
    project.run("mtl", "repro", "--jobs", "2")
    assert not [name for name in contents(project) if "model2" in name]
    listed = json.loads(project.run("mtl", "runs", "--json").stdout)
    assert not [row for row in listed if "model2" in row["out"]]
    project.run("dvc", "remote", "add", "-q", "--default", "remote", str(tmp_path / "remote"))
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "renamed")
    project.run("dvc", "push", "-q")
    clone = Project(tmp_path / "clone", project.environment | {"PYTHONPATH": str(tmp_path / "clone/src")})
    subprocess.run(["git", "clone", "-q", project.root, clone.root], check=True, env=project.environment)
    clone.run("dvc", "pull", "-q")
    assert "up to date" in clone.run("dvc", "status").stdout
    # Without images, another recipe is trained there.
    shutil.rmtree(clone.root / "data/external")
    clone.edit(lambda tree: tree["recipes"]["compact"].update(epochs=1))
    clone.run("dvc", "repro", "--allow-missing", "train@other")
    assert len((clone.root / "metrics/plots/other_history.csv").read_text().splitlines()) == 2


def test_what_somebody_else_wrote_in_the_place_of_a_former_task_is_kept(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    yaml, lock = YAML(), Path("dvc.lock")
    tree = yaml.load(lock)
    outs = [{"path": f"models/{name}.keras", "md5": "d41d8cd98f00b204e9800998ecf8427e"} for name in ("mine", "gone")]
    tree["stages"]["train@gone"] = {"cmd": "true", "outs": outs}
    yaml.dump(tree, lock)
    for name, content in (("mine", "x"), ("gone", "")):
        Path(f"models/{name}.keras").write_text(content)
    assert lineage.leftovers("train@") == [Path("models/gone.keras")]
