"""The plots page, the galleries and the tables in MLflow, as a person finds them after a run."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import mlflow
import numpy as np
import pytest
from conftest import CIFAR10, ROOT, Project, regrouped, task_spec
from PIL import Image
from ruamel.yaml import YAML

from mtl.data import paths
from mtl.errors import UserError
from mtl.evaluation import figures, gallery
from mtl.networks import saving
from mtl.tasks.answers import Answers

KINDS = ("confusion", "per_class", "reliability")
GALLERIES = {"model1_mistakes", "model2_mistakes", "model2_contradictions"}


def drawn(project: Project, *arguments: str) -> dict[str, list[dict]]:
    """The plots of a `dvc plots` command by the path of their file, as DVC gives them in JSON."""
    done = project.run("dvc", "plots", *arguments, "--json")
    assert "failed" not in done.stderr.lower()
    plots = json.loads(done.stdout)
    assert not plots.get("errors")
    return plots["data"]


def test_every_table_and_gallery_is_drawn(done, tmp_path):
    plots = drawn(done.copy(tmp_path / "p"), "show")
    tables = {f"metrics/plots/{kind}/{task}.csv": task for kind in KINDS for task in ("model1", "model2")}
    curves = {f"metrics/plots/{task}_history.csv" for task in ("model1", "model2")}
    galleries = {f"metrics/plots/gallery/{name}.png" for name in GALLERIES}
    empty = {f"metrics/plots/{name}/empty.csv" for name in ("per_label", "values")}  # no task has such a table
    assert set(plots) == {*tables, *curves, *galleries, *empty}
    filled = {path: plot for path, found in plots.items() if path not in empty for plot in found}
    specs = {path: plot["content"] for path, plot in filled.items() if plot["type"] == "vega"}
    assert set(specs) == {*tables, *curves}
    for path, spec in specs.items():
        assert spec["title"]["text"]
        assert "<DVC_METRIC" not in json.dumps(spec)  # every placeholder of the template was filled
        if path in tables:
            assert {row["task"] for row in spec["data"]["values"]} == {tables[path]}
    classes = {row["class"] for row in specs["metrics/plots/per_class/model1.csv"]["data"]["values"]}
    assert classes == set(CIFAR10)


@pytest.mark.slow
def test_diff_lays_two_revisions_over_each_other(done, tmp_path):
    project = done.copy(tmp_path / "p")
    project.run("dvc", "exp", "run", "-q", "-n", "one-epoch", "-S", "recipes.compact.epochs=1")
    plots = drawn(project, "diff", "HEAD", "one-epoch")
    specs = [plot["content"] for entries in plots.values() for plot in entries if plot["type"] == "vega"]
    assert len(specs) == 2 + 2 * len(KINDS) + 2  # and the two empty ones
    for spec in specs:
        assert {row["rev"] for row in spec["data"]["values"]} == {"HEAD", "one-epoch"}
    pictures = [plot for entries in plots.values() for plot in entries if plot["type"] == "image"]
    assert len(pictures) == 2 * len(GALLERIES)


def test_without_validation_images_the_curves_are_those_of_training(done, tmp_path):
    project = done.copy(tmp_path / "p")
    history = "metrics/plots/model1_history.csv"
    (project.root / history).write_text("epoch,acc,loss\n1,0.5,1.0\n2,0.6,0.9\n")
    (plot,) = drawn(project, "show", history)[history]
    assert [row["acc"] for row in plot["content"]["data"]["values"]] == ["0.5", "0.6"]


def test_templates_are_those_that_dvc_yaml_names():
    named = re.findall(r"template: (\w+)", (ROOT / "dvc.yaml").read_text())
    assert set(named) == {path.stem for path in (ROOT / ".dvc" / "plots").glob("*.json")}


def test_tables_of_a_run_agree_with_its_metrics(done):
    verdict = json.loads((done.root / "metrics/main_evaluate.json").read_text())
    for task, got in verdict["tasks"].items():
        rows = {
            kind: list(csv.DictReader(io.StringIO((done.root / f"metrics/plots/{kind}/{task}.csv").read_text())))
            for kind in KINDS
        }
        rows["reliability"] = [row for row in rows["reliability"] if row["answers"] == "as given"]
        for table in rows.values():
            assert sum(int(row["images"]) for row in table) == 40
        right = sum(int(row["images"]) for row in rows["confusion"] if row["actual"] == row["predicted"])
        assert right / 40 == pytest.approx(got["acc"])
        gap = sum(int(r["images"]) * abs(float(r["acc"]) - float(r["confidence"])) for r in rows["reliability"]) / 40
        assert gap == pytest.approx(got["ece"])
    assert verdict["tasks"]["model1"]["nll_ratio"] == pytest.approx(
        verdict["tasks"]["model1"]["nll"] / np.log(10), rel=1e-6
    )


def test_galleries_are_outs_of_dvc_and_not_in_git(done):
    outs = YAML(typ="safe").load(done.root / "dvc.lock")["stages"]["main_evaluate"]["outs"]
    assert "metrics/plots/gallery" in {out["path"] for out in outs}
    tracked = done.run("git", "ls-files", "metrics").stdout.split()
    assert not [name for name in tracked if "gallery/" in name]
    assert [name for name in tracked if name.startswith("metrics/plots/confusion/")]
    with Image.open(done.root / "metrics/plots/gallery/model1_mistakes.png") as picture:
        assert picture.info.keys() <= {"dpi"}  # neither a time nor the version that drew it


def test_the_run_in_mlflow_has_the_same_tables_and_galleries(done, tmp_path):
    mlflow.set_tracking_uri(f"sqlite:///{done.root / 'mlflow.db'}")
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("main_evaluate").experiment_id])
    logged = {item.path for kind in (*KINDS, "gallery") for item in client.list_artifacts(run.info.run_id, kind)}
    expected = {f"{kind}/{task}.csv" for kind in KINDS for task in ("model1", "model2")}
    assert {path.stem for path in (done.root / "metrics/plots/gallery").iterdir()} == GALLERIES
    assert logged == expected | {f"gallery/{name}.png" for name in GALLERIES}
    for name in expected:
        table = Path(client.download_artifacts(run.info.run_id, name, str(tmp_path)))
        assert table.read_bytes() == (done.root / "metrics/plots" / name).read_bytes()
    metrics = run.data.metrics
    assert metrics["derived.model2.agree.images"] + metrics["derived.model2.contradict.images"] == 40


def of_two_models() -> tuple[dict[str, Answers], np.ndarray, list[str]]:
    """Three images: fine is wrong on the last, coarse on the second."""
    fine = Answers(
        task_spec("fine", ("cat", "$dog$", "ship")),
        np.array([0, 1, 2]),
        np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.6, 0.2, 0.2]]),
        "categorical_crossentropy",
    )
    coarse = Answers(
        task_spec("coarse", {"cat": "animal", "$dog$": "animal", "ship": "vehicle"}),
        np.array([0, 0, 1]),
        np.array([[0.9, 0.1], [0.25, 0.75], [0.0, 1.0]]),
        "categorical_crossentropy",
    )
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    answers = {"fine": fine, "coarse": coarse}
    return answers, regrouped(fine.task, coarse.task), images, ["cat", "$dog$", "ship"]


def captions(figure) -> list[list[str]]:
    return [[text.get_text() for text in axes.texts] for axes in figure.axes]


def test_pictures_say_what_they_are_and_what_each_model_said():
    drawn = gallery.draw(*of_two_models())
    assert captions(drawn["fine_mistakes"]) == [["ship", "fine: cat 60%", "coarse: vehicle 100%"]]
    assert captions(drawn["coarse_mistakes"]) == [["$dog$", "fine: $dog$ 80%", "coarse: vehicle 75%"]]
    # Both surest on the second image; the third has fine's 60 %.
    assert [lines[0] for lines in captions(drawn["coarse_contradictions"])] == ["$dog$", "ship"]
    colours = [text.get_color() for text in drawn["fine_mistakes"].axes[0].texts]
    assert colours == ["black", figures.WRONG, figures.RIGHT]


def test_the_same_answers_are_the_same_bytes():
    first, second = (
        {name: figures.png(figure) for name, figure in gallery.draw(*of_two_models()).items()} for _ in range(2)
    )
    assert first == second


def test_a_model_without_mistakes_has_a_gallery_that_says_so():
    figure = figures.gallery("model1: the mistakes it was surest of", [])
    assert figure.get_suptitle() == "model1: the mistakes it was surest of: there is none"
    assert figures.png(figure).startswith(b"\x89PNG")


@pytest.mark.usefixtures("tensorflow")
def test_a_model_is_read_for_its_own_task_alone(done, tmp_path):
    import keras

    path, shape = done.root / "models/model2.keras", (12, 12, 3)
    task = task_spec("model2", ("animal", "vehicle"))
    assert saving.read_for(task, shape, path).output_shape == (None, 2)
    for names in (("vehicle", "animal"), ("yes", "no"), CIFAR10):
        with pytest.raises(UserError, match="tells animal, vehicle apart and the labels are "):
            saving.read_for(task_spec("model2", names), shape, path)
    with pytest.raises(UserError, match=r"takes images \(12, 12, 3\), these are \(32, 32, 3\)"):
        saving.read_for(task, (32, 32, 3), path)
    with pytest.raises(UserError, match=r"gone.keras is missing: run `dvc repro`"):
        saving.read_for(task, shape, tmp_path / "gone.keras")
    foreign = tmp_path / "foreign.keras"
    keras.Sequential([keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(2)]).save(foreign)
    with pytest.raises(UserError, match="does not say which task"):
        saving.read_for(task, shape, foreign)


def test_another_tasks_model_is_one_line_and_the_last_verdict_stays(done, tmp_path):
    project = done.copy(tmp_path / "p")
    model = project.root / paths.model_path("model2")
    model.unlink()  # it may be a link into DVC's cache
    model.write_bytes((project.root / paths.model_path("model1")).read_bytes())
    failed = project.run("python", "src/main_evaluate.py", check=False)
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr
    (line,) = [line for line in failed.stderr.splitlines() if line.startswith("error:")]
    assert line.startswith("error: models/model2.keras tells airplane, automobile")
    for name in ("main_evaluate.json", "plots/gallery/model2_mistakes.png", "plots/confusion/model2.csv"):
        path = project.root / "metrics" / name
        assert path.read_bytes() == (done.root / "metrics" / name).read_bytes()
