"""`make run`: where the images come from, what it says, and that a second time there is nothing to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, Project, clone, small, write_images

from mtl.config import params
from mtl.config.editing import set_params
from mtl.errors import UserError
from mtl.stages import placing

NO_NETWORK = {f"{scheme}_proxy": "http://127.0.0.1:1" for scheme in ("http", "https", "HTTP", "HTTPS")}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty project: params.yaml and data/external, no network, no cache, no copy."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "data" / "external").mkdir(parents=True)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.delenv("CIFAR10_PATH", raising=False)
    for name, value in NO_NETWORK.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def test_without_a_copy_or_a_network_the_images_are_generated(here):
    placing.choose_images(params.read())
    before, after = ((folder / "params.yaml").read_text() for folder in (ROOT, here))
    assert (params.read().data.source, params.read().data.path) == ("generated", "data/generated")
    assert (ROOT / "data/generated").is_dir()  # load_data depends on it
    # Nothing else changed, comments included.
    restored = after.replace("source: generated", "source: cifar10").replace(
        "path: data/generated", "path: data/external"
    )
    assert restored.split() == before.split()


def test_a_copy_is_taken_as_files_and_put_under_dvc(fresh: Project, tmp_path, monkeypatch):
    project = fresh.copy(tmp_path / "p")
    monkeypatch.chdir(project.root)
    external = project.root / "data/external"
    shutil.rmtree(external)
    (project.root / "data/external.dvc").unlink()
    set_params({"data.source": "generated", "data.path": "data/generated"})
    write_images(tmp_path / "copy")
    (external).mkdir()
    (external / "old").symlink_to(tmp_path / "copy")  # as it was done before
    for _ in range(2):
        placing.choose_images_from(tmp_path / "copy", params.read())
        assert [path.name for path in external.iterdir()] == ["copy"]
    assert (params.read().data.source, params.read().data.path) == ("cifar10", "data/external")
    assert not [path for path in external.rglob("*") if path.is_symlink()]
    assert "data/external" in project.run("dvc", "list", ".", "--dvc-only", "-R").stdout
    # DVC has the first copy, so that another takes its place; what nobody else has is not removed.
    write_images(tmp_path / "other", train=13)
    placing.choose_images_from(tmp_path / "other", params.read())
    assert [path.name for path in external.iterdir()] == ["other"]
    write_images(tmp_path / "third", train=14)
    with pytest.raises(UserError, match="other is in the way"):
        placing.choose_images_from(tmp_path / "third", params.read())
    assert len(list((external / "other/train/cat").iterdir())) == 13


def test_a_copy_that_is_not_there_is_one_line(here):
    with pytest.raises(UserError, match=r"CIFAR10_PATH: nowhere.tar does not exist; give an archive or a folder"):
        placing.choose_images_from(Path("nowhere.tar"), params.read())


def test_a_copy_in_data_external_needs_no_network(here):
    write_images(here / "data" / "external")
    placing.choose_images(params.read())
    assert params.read().data.source == "cifar10"


def test_the_whole_run_and_a_second_one(fresh: Project, tmp_path):
    project = fresh.copy(tmp_path / "p")
    shutil.rmtree(project.root / "data/external/train")
    shutil.rmtree(project.root / "data/external/test")
    write_images(tmp_path / "my copy")
    project.edit(lambda tree: (small(tree), tree["data"].update(source="cifar10")))
    first = project.run("mtl", "run", "--jobs", "2", CIFAR10_PATH=str(tmp_path / "my copy"), **NO_NETWORK)
    for text in (
        "CIFAR-10, PNG copy, 160 of 60,000 images: 100 training, 20 validation and 40 test images",
        "model1",
        "model2",
        "sum_loss",
        "ave_acc",
        "model2 as model1 implies it",
        "model2 contradicts model1",
        "mlflow ui",
        "dvc plots show",
        "dvc params diff",
    ):
        assert text in first.stdout
    second = project.run("mtl", "run", **NO_NETWORK)
    assert "Everything is up to date" in second.stdout + second.stderr
    table = first.stdout[first.stdout.index("task  ") :].rpartition("\n\n")[0]
    assert table in second.stdout


@pytest.mark.slow
def test_the_shipped_recipe_on_generated_images_is_neither_lost_nor_perfect(tmp_path_factory):
    """What a newcomer without copy and network gets; and the same lock when it is all done again."""
    project = clone(tmp_path_factory.mktemp("generated"))
    project.run("mtl", "run", **NO_NETWORK)
    verdict = json.loads((project.root / "metrics/main_evaluate.json").read_text())
    assert 0.9 < verdict["tasks"]["model1"]["acc"] < 1
    assert 0.9 < verdict["tasks"]["model2"]["acc"] < 1
    lock = project.lock()
    project.run("mtl", "repro", "--force", "--jobs", "2")
    assert project.lock() == lock


@pytest.mark.slow
def test_the_published_recipes_run_as_an_experiment(tmp_path_factory):
    """Two epochs on all images, as the README says it for fifty."""
    project = clone(tmp_path_factory.mktemp("published"))
    sets = ["data.source=generated", "data.path=data/generated", "data.validation=0"]
    for task, name in (("model1", "article_multiclass"), ("model2", "article_binary")):
        sets += [f"tasks.{task}.recipe={name}", f"recipes.{name}.epochs=2"]
    project.run("dvc", "exp", "run", *(part for each in sets for part in ("-S", each)))
    verdict = json.loads((project.root / "metrics/main_evaluate.json").read_text())
    assert set(verdict["tasks"]) == {"model1", "model2"}
    assert not (project.root / "metrics/model1.json").read_text().count("val_")


@pytest.mark.slow
def test_generated_images_are_said_in_the_first_and_last_lines(fresh: Project, tmp_path, monkeypatch):
    project = fresh.copy(tmp_path / "p")
    shutil.rmtree(project.root / "data/external")
    project.edit(lambda tree: tree["data"].update(source="cifar10"))
    project.edit(lambda tree: tree["recipes"]["compact"].update(epochs=1, batch_size=1000, options={"widths": [8, 8]}))
    done = project.run("mtl", "run", **NO_NETWORK)
    assert params.read(project.root / "params.yaml").data.path == "data/generated"
    assert "GENERATED" in done.stdout.splitlines()[0]
    assert "GENERATED" in done.stdout.splitlines()[-2]
    assert "generated images: 14980 training, 20 validation and 2000 test images" in done.stdout
