"""`mtl promote`, `mtl rollback` and `mtl.load` on the small DAG: registered once, judged, moved, taken back."""

from __future__ import annotations

import io
import sqlite3
import subprocess
import tempfile
from pathlib import Path

import mlflow
import numpy as np
import pytest
from conftest import Project
from filelock import FileLock
from PIL import Image

import mtl
from mtl.config import params
from mtl.errors import UserError
from mtl.release import judging, predictor, promotion
from mtl.tracking import registry


@pytest.fixture(scope="module")
def template(done: Project, tmp_path_factory) -> Project:
    """The small DAG with a gate that its models pass."""
    project = done.copy(tmp_path_factory.mktemp("registry") / "p")
    project.environment = done.environment | {"PYTHONPATH": str(project.root / "src")}
    project.edit(lambda tree: tree["promote"].update(accuracy={"model1": 0.0}, contradictions=1.0, significance=1e-9))
    project.run("git", "commit", "-qam", "gate")
    return project


@pytest.fixture
def project(template: Project, tmp_path, monkeypatch, tensorflow) -> Project:
    return enter(template.copy(tmp_path / "p"), monkeypatch)


@pytest.fixture(scope="module")
def promoted(template: Project, tmp_path_factory, tensorflow) -> Project:
    """After the first promotion. Copy it before changing it."""
    project = template.copy(tmp_path_factory.mktemp("promoted") / "p")
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(project, monkeypatch)
        promote()
    return project


def enter(project: Project, monkeypatch) -> Project:
    """Work in the project's folder, with its own store."""
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project.root / 'mlflow.db'}")
    mlflow.set_tracking_uri(f"sqlite:///{project.root / 'mlflow.db'}")
    return project


def promote(**flags: bool) -> None:
    promotion.promote(**{"dry_run": False, "allow_dirty": False, "again": False} | flags)


def refusal(**flags: bool) -> str:
    with pytest.raises(UserError) as caught:
        promote(**flags)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def registered() -> dict[str, list[str]]:
    return {name: [v.number for v in registry.versions(name)] for name in ("joint", "model1", "model2")}


def retrain(project: Project, epochs: int) -> None:
    project.edit(lambda tree: tree["recipes"]["compact"].update(epochs=epochs))
    project.run("dvc", "repro", "-q")
    project.run("git", "commit", "-qam", f"{epochs} epochs")


def test_the_first_promotion_and_that_nothing_new_is_nothing_done(project, capsys):
    promote(dry_run=True)
    assert "joint (a new version) passes and would become @champion, now no version" in capsys.readouterr().out
    assert registered() == {"joint": [], "model1": [], "model2": []}
    promote()
    said = capsys.readouterr().out
    assert "joint version 1 is @champion now, no version before" in said
    assert registered() == {"joint": ["1"], "model1": ["1"], "model2": ["1"]}
    (version,) = registry.versions("joint")
    lock = project.lock()["stages"]
    (model,) = [out["md5"] for out in lock["train@model2"]["outs"] if out["path"] == "models/model2.keras"]
    assert version.tags["models/model2.keras"] == model
    assert version.tags["git_commit"] == project.run("git", "rev-parse", "HEAD").stdout.strip()
    promote()
    assert "joint version 1 is @champion already: nothing to do" in capsys.readouterr().out
    assert registered()["joint"] == ["1"]


def test_what_does_not_pass_is_registered_and_not_promoted(project, capsys):
    project.edit(lambda tree: tree["promote"].update(accuracy={"model1": 0.0, "model2": 1.0}, contradictions=0.0))
    message = refusal(allow_dirty=True)
    assert message.startswith("joint version 1 is not promoted: model2: accuracy 0.")
    assert "is below 1" in message
    assert "model2" in capsys.readouterr().out
    assert registry.champion() is None
    assert registered()["joint"] == ["1"]


@pytest.mark.slow
def test_a_new_model_a_rollback_and_the_next_night(promoted, tmp_path, monkeypatch, capsys):
    project = enter(promoted.copy(tmp_path / "p"), monkeypatch)
    retrain(project, 3)
    promote()
    said = capsys.readouterr().out
    assert "joint version 2 is @champion now, version 1 before" in said
    assert "on the 20 validation images that the champion was not trained on" in said
    promotion.rollback(None)
    assert registry.champion().number == "1"
    capsys.readouterr()
    promote()
    assert "joint version 2 was rolled back: nothing done" in capsys.readouterr().out
    assert registry.champion().number == "1"
    with pytest.raises(UserError, match="version 1 is the first champion"):
        promotion.rollback(None)
    promote(again=True)
    assert registry.champion().number == "2"
    assert not registry.champion().rolled_back
    with pytest.raises(UserError, match=r"joint has no version '9'; known: 1, 2"):
        promotion.rollback("9")
    promotion.rollback("1")
    assert registry.champion().number == "1"
    # The same bytes are the same version, however the lock came back to them.
    project.run("git", "checkout", "-q", "HEAD~1")
    project.run("dvc", "checkout", "-q")
    capsys.readouterr()
    promote()
    assert "joint version 1 is @champion already" in capsys.readouterr().out
    assert registered() == {"joint": ["1", "2"], "model1": ["1", "2"], "model2": ["1", "2"]}


def test_what_the_champion_was_trained_on_is_known_image_by_image(promoted, monkeypatch):
    enter(promoted, monkeypatch)
    trained_on, held_out = (np.load(f"data/raw/images/x_{split}.npy") for split in ("train", "validation"))
    champion = registry.champion()
    mixed = np.concatenate([trained_on[:5], held_out[:3], trained_on[5:6]])
    assert _unseen(mixed, champion).tolist() == [5, 6, 7]
    with pytest.raises(UserError, match="joint version 1 was trained on every one of the validation images"):
        judging.champion_answers(champion, params.read(), trained_on[: len(held_out)], print)
    answers, compared = judging.champion_answers(champion, params.read(), held_out, print)
    assert set(answers) == {"model1", "model2"}
    assert compared.tolist() == list(range(20))


def _unseen(images, version) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        return judging.unseen_indices(images, version, Path(folder))


@pytest.mark.slow
def test_with_another_split_only_what_the_champion_has_not_seen_is_compared(promoted, tmp_path, monkeypatch, capsys):
    project = enter(promoted.copy(tmp_path / "p"), monkeypatch)
    held_out = Path("data/raw/images/x_validation.npy")
    before = judging.fingerprints(np.load(held_out))
    project.edit(lambda tree: tree["data"].update(validation=30))
    project.run("dvc", "repro", "-q")
    both = len(np.intersect1d(before, judging.fingerprints(np.load(held_out))))
    assert 0 < both < 30
    promote(allow_dirty=True)
    assert f"on the {both} validation images that the champion was not trained on" in capsys.readouterr().out


def test_uncommitted_changes_are_refused_unless_told(promoted, tmp_path, monkeypatch, capsys):
    project = enter(promoted.copy(tmp_path / "p"), monkeypatch)
    project.edit(lambda tree: tree["recipes"]["compact"].update(epochs=1))
    assert refusal() == "uncommitted changes (params.yaml); commit them, or --allow-dirty"
    project.run("git", "commit", "-qam", "one")
    assert refusal().startswith("dvc status: train@model1, train@model2 changed; run `dvc repro`")
    promote(allow_dirty=True)
    assert "joint version 1 is @champion already" in capsys.readouterr().out
    Path("data/labels/model1/task.json").write_text("{}")
    assert refusal(allow_dirty=True).startswith("data/labels is not what dvc.lock says")


def test_a_gate_that_names_no_task_is_refused(promoted, tmp_path, monkeypatch):
    project = enter(promoted.copy(tmp_path / "p"), monkeypatch)
    project.edit(lambda tree: tree["promote"].update(accuracy={"modell": 0.5}))
    assert refusal() == "params.yaml: promote.accuracy.modell: no such task; known: model1, model2"
    project.edit(lambda tree: tree["promote"].update(accuracy={}))
    assert refusal().startswith("params.yaml: promote.accuracy: 0 entries; give at least 1")
    project.edit(lambda tree: tree.pop("promote"))
    assert refusal().startswith("params.yaml: there is no promote: section")


def test_a_lock_whose_models_no_run_has_says_what_to_do(promoted, tmp_path, monkeypatch):
    enter(promoted.copy(tmp_path / "p"), monkeypatch)
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("main_evaluate").experiment_id])
    client.delete_run(run.info.run_id)
    message = "no run in MLflow has the joint model of this dvc.lock; `dvc repro -f -s main_evaluate` logs it"
    assert refusal() == message


def test_two_at_once_one_waits_outside(promoted, tmp_path, monkeypatch):
    project = enter(promoted.copy(tmp_path / "p"), monkeypatch)
    with FileLock(project.root / ".dvc/tmp/mtl-promote.lock"):
        refused = project.run("mtl", "promote", check=False)
        assert refused.returncode == 1
        assert refused.stderr.startswith("error: another `mtl promote` or `mtl rollback` is running")
        with pytest.raises(UserError, match="is running"):
            promotion.rollback(None)


def test_an_alias_that_was_moved_meanwhile_stays_where_it_is(promoted, tmp_path, monkeypatch, capsys):
    """Two machines share a registry and no lock: each tells the version it has judged against."""
    enter(promoted.copy(tmp_path / "p"), monkeypatch)
    first = registry.champion()
    client = mlflow.MlflowClient()
    client.create_model_version("joint", client.get_model_version_download_uri("joint", "1"), first.run_id)
    second = registry.version("joint", "2")
    registry.move_champion(second, "1")
    with pytest.raises(UserError, match=r"joint@champion was moved from no version to version 2 meanwhile"):
        registry.move_champion(first, None)
    assert registry.champion().number == "2"
    assert registry.champion().tags[registry.PREVIOUS] == "1"
    promotion.rollback(None)
    assert capsys.readouterr().out == "joint version 1 is @champion again, 2 no more\n"
    assert registry.champion() == first
    assert registry.version("joint", "2").rolled_back
    with pytest.raises(UserError, match="joint version 1 is the first champion: there is none before it"):
        promotion.rollback(None)


def dangling(project: Project) -> None:
    """Leave the alias at version 2, which is gone, as servers before MLflow's PR 24825 do."""
    client, first = mlflow.MlflowClient(), registry.champion()
    client.create_model_version("joint", client.get_model_version_download_uri("joint", "1"), first.run_id)
    client.set_registered_model_alias("joint", "champion", "2")
    client.delete_model_version("joint", "2")
    with sqlite3.connect(project.root / "mlflow.db") as database:
        database.execute("INSERT OR REPLACE INTO registered_model_aliases VALUES ('champion', 2, 'joint', 'default')")
    database.close()
    assert registry.aliases("joint") == {"champion": "2"}


def test_an_alias_whose_version_is_gone_is_mended_by_a_rollback(promoted, tmp_path, monkeypatch, capsys):
    dangling(enter(promoted.copy(tmp_path / "p"), monkeypatch))
    for asked in (lambda: promotion.rollback(None), lambda: mtl.load("models:/joint@champion")):
        with pytest.raises(
            UserError, match=r"joint@champion points at version 2, .*known: 1; `mtl rollback --to"
        ) as told:
            asked()
        assert "\n" not in str(told.value)
    promotion.rollback("1")
    assert registry.champion().number == "1"
    assert capsys.readouterr().out.startswith("joint version 1 is @champion again")
    with pytest.raises(UserError, match="joint version 1 is @champion already"):
        promotion.rollback("1")
    mlflow.MlflowClient().delete_registered_model_alias("joint", "champion")
    promotion.rollback("1")
    assert registry.champion().number == "1"


def test_an_alias_whose_version_is_gone_is_mended_by_a_promotion(promoted, tmp_path, monkeypatch, capsys):
    dangling(enter(promoted.copy(tmp_path / "p"), monkeypatch))
    promote()
    assert "joint version 1 is @champion now, version 2, which is gone, before" in capsys.readouterr().out
    assert registry.champion().number == "1"
    assert registry.PREVIOUS not in registry.champion().tags


def test_a_champion_before_that_is_gone_is_not_gone_back_to(promoted, tmp_path, monkeypatch):
    enter(promoted.copy(tmp_path / "p"), monkeypatch)
    client, first = mlflow.MlflowClient(), registry.champion()
    client.create_model_version("joint", client.get_model_version_download_uri("joint", "1"), first.run_id)
    registry.move_champion(registry.version("joint", "2"), "1")
    client.delete_model_version("joint", "1")
    with pytest.raises(UserError, match=r"version 1, @champion before, is gone; .*mtl rollback --to .*known: 2"):
        promotion.rollback(None)


def test_a_store_that_is_away_is_one_line(promoted, tmp_path, monkeypatch):
    project = promoted.copy(tmp_path / "p")
    environment = {"MLFLOW_TRACKING_URI": "http://user:secret@127.0.0.1:9"}
    for command in (("mtl", "promote"), ("mtl", "rollback")):
        failed = project.run(*command, check=False, **environment)
        assert failed.returncode == 1
        assert failed.stderr.startswith("error: the MLflow tracking server http://127.0.0.1:9: no answer")
        assert len(failed.stderr.splitlines()) == 1
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match=r"no mlflow.db here, .* or set MLFLOW_TRACKING_URI"):
        mtl.load("models:/joint@champion")
    assert not (tmp_path / "mlflow.db").exists()


@pytest.fixture(scope="module")
def champion(promoted):
    with pytest.MonkeyPatch.context() as monkeypatch:
        enter(promoted, monkeypatch)
        yield mtl.load("models:/joint@champion")


def test_a_loaded_model_answers_by_name_as_the_saved_ones(champion, promoted):
    from mtl.networks import inference, saving

    images = np.load(promoted.root / "data/raw/images/x_test.npy", allow_pickle=False)[:6]
    assert champion.tasks["model2"] == ("animal", "vehicle")
    got = champion.predict(images)
    for task, names in champion.tasks.items():
        expected = inference.predict(saving.read(promoted.root / f"models/{task}.keras"), images)
        for prediction, row in zip(got, expected, strict=True):
            answer = prediction.tasks[task]
            assert answer.name == names[row.argmax()]
            np.testing.assert_allclose(list(answer.probabilities.values()), row, rtol=1e-5)
            assert answer.probability == answer.probabilities[answer.name]
    vehicles = {"airplane", "automobile", "ship", "truck"}
    for prediction in got:
        named = prediction.tasks["model1"].name in vehicles
        assert prediction.contradicts == (named != (prediction.tasks["model2"].name == "vehicle"))


def test_every_kind_of_picture_is_the_same_picture(champion, promoted, tmp_path):
    pixels = np.load(promoted.root / "data/raw/images/x_test.npy", allow_pickle=False)[0]
    image, path = Image.fromarray(pixels), tmp_path / "a.png"
    image.save(path)
    expected = champion.predict(pixels)
    for picture in (path, str(path), path.read_bytes(), image):
        assert champion.predict(picture) == expected
        assert champion.predict([picture]) == [expected]
    assert champion.predict([]) == []
    assert champion.predict(image.convert("CMYK")).tasks.keys() == expected.tasks.keys()
    # A picture of another size is made as large as the models' images; an array is taken as it is, or not at all.
    large = image.resize((24, 24), Image.Resampling.NEAREST)
    assert champion.predict(large).tasks.keys() == expected.tasks.keys()
    with pytest.raises(UserError, match=r"an array of uint8 \(24, 24, 3\); uint8 \(12, 12, 3\) is needed"):
        champion.predict(np.asarray(large))
    with pytest.raises(UserError, match=r"an array of float32"):
        champion.predict(pixels.astype(np.float32))
    with pytest.raises(UserError, match=r"nowhere.png: No such file"):
        champion.predict("nowhere.png")
    with pytest.raises(UserError, match=r"image: not a whole image"):
        champion.predict(path.read_bytes()[:60])
    turned = io.BytesIO()
    image.save(turned, "JPEG", exif=_turned())
    assert champion.predict(turned.getvalue()) == champion.predict(Image.open(io.BytesIO(turned.getvalue())))


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("models:/joint@champoin", "joint has no alias 'champoin'; known: champion"),
        ("models:/joint/7", "joint has no version '7'; known: 1"),
        ("models:/jiont@champion", "no registered model 'jiont'"),
        ("models:/joint", "write models:/joint@champion, models:/joint/3"),
        ("joint", "write models:/joint@champion"),
        ("models:/m-" + "0" * 32, "not found"),
    ],
)
def test_an_unknown_model_is_one_line_that_names_those_there_are(promoted, monkeypatch, uri, message):
    enter(promoted, monkeypatch)
    with pytest.raises(UserError) as caught:
        mtl.load(uri)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_tasks_model_is_loaded_by_its_own_name(promoted, monkeypatch):
    enter(promoted, monkeypatch)
    model = mtl.load("models:/model2/1")
    prediction = model.predict(np.zeros(model.shape, np.uint8))
    assert set(prediction.tasks["model2"].probabilities) == {"animal", "vehicle"}
    assert prediction.contradicts is None
    assert isinstance(model, predictor.Predictor)


def test_importing_mtl_costs_nothing(promoted):
    code = "import sys, mtl; sys.exit(bool({'numpy', 'mlflow', 'click'} & set(sys.modules)))"
    assert subprocess.run(["python", "-c", code], env=promoted.environment).returncode == 0
