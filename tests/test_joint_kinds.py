"""The joint model with a task of each kind: as a pyfunc, by `mtl.load`, behind MLflow's server and the gateway."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import mixed
import mlflow
import numpy as np
import pytest
import requests
from gateways import Process
from images import encoded
from mixed import BLUE, GREEN, RED, TASKS, picture
from servers import mlflow_serving

import mtl
from mtl import tracking
from mtl.data import paths, store
from mtl.errors import UserError
from mtl.networks import saving
from mtl.release.predictor import Predictor
from mtl.tracking import bundles

COLUMNS = ["flaws", "flaws_dent", "flaws_scratch", "shape", "shape_probability", "size"]


@pytest.fixture(scope="module")
def project(tensorflow, tmp_path_factory):
    return mixed.write(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def joint(project):
    """The URI of the logged joint model; the project is the working directory."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(project)
        uri = f"sqlite:///{project}/mlflow.db"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        experiment = mlflow.create_experiment("e", artifact_location=(project / "artifacts").as_uri())
        shutil.copytree(paths.MODELS, "joint")
        images = store.read_images("test")
        with mlflow.start_run(experiment_id=experiment) as active:
            run = tracking.Run(tracking.identify("e", active.info.run_id))
            run.log_joint_model(Path("joint"), images)
            run.log_model(saving.read(paths.model_path("size")), TASKS["size"], (), images)
            assert run.lost == run.pending == []
        found = mlflow.search_logged_models([experiment], output_format="list")
        yield {model.name: model.model_uri for model in found}
        mlflow.set_tracking_uri(None)


def test_mtl_load_answers_for_every_kind(joint):
    model = mtl.load(joint["joint"])
    assert isinstance(model, Predictor)
    red, green, blue = model.predict([picture(colour) for colour in (RED, GREEN, BLUE)])
    assert (red.tasks["shape"].name, green.tasks["shape"].name) == ("bar", "disc")
    assert green.tasks["flaws"].names == ("dent",)  # a weak scratch is below its threshold, which the model has
    assert green.tasks["flaws"].probabilities["scratch"] > 0.5
    assert red.tasks["flaws"].names == ()
    assert (red.tasks["size"].unit, red.tasks["size"].name) == ("mm", None)
    assert blue.tasks["size"].value == pytest.approx(2 * red.tasks["size"].value)
    assert red.contradicts is None
    (alone,) = mtl.load(joint["model"]).predict([picture(BLUE)])
    assert alone.tasks == {"size": blue.tasks["size"]}


@pytest.mark.slow
def test_the_pyfunc_is_a_table_of_named_columns_without_this_project(joint, project):
    code = f"""
import json, sys
import mlflow, numpy as np
model = mlflow.pyfunc.load_model({joint["joint"]!r})
answers = model.predict(np.load("data/raw/images/x_test.npy"))
assert not [name for name in sys.modules if name == "mtl" or name.startswith("mtl.")]
signature = [column.to_dict() for column in model.metadata.signature.outputs]
print(json.dumps([list(answers.columns), answers.to_dict("list"), signature]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    columns, answers, signature = json.loads(done.stdout.splitlines()[-1])
    assert columns == [column["name"] for column in signature] == COLUMNS
    assert [column["type"] for column in signature] == ["string", "double", "double", "string", "double", "double"]
    predictor = mtl.load(joint["joint"])
    for index, prediction in enumerate(predictor.predict(np.load(project / "data/raw/images/x_test.npy"))):
        assert answers["shape"][index] == prediction.tasks["shape"].name
        assert answers["flaws"][index] == "|".join(prediction.tasks["flaws"].names)
        assert answers["flaws_dent"][index] == pytest.approx(prediction.tasks["flaws"].probabilities["dent"], abs=1e-6)
        assert answers["size"][index] == pytest.approx(prediction.tasks["size"].value, rel=1e-6)


@pytest.mark.slow
def test_mlflows_server_and_the_gateway_give_the_same_answers(joint, project, tmp_path):
    server, images = Process(project), np.load(project / "data/raw/images/x_test.npy")
    with mlflow_serving(joint["joint"], f"sqlite:///{project}/mlflow.db", tmp_path / "log") as url:
        answer = requests.post(f"{url}/invocations", json={"inputs": images.tolist()}, timeout=60)
        rows = answer.json()["predictions"]
        for row, image in zip(rows, images, strict=True):
            found = server.client.post("/predict", data=encoded(image)).json()["answers"]
            assert row["shape"] == found["shape"]["label"]
            assert [name for name in row["flaws"].split("|") if name] == found["flaws"]["labels"]
            assert row["flaws_scratch"] == pytest.approx(found["flaws"]["probabilities"]["scratch"], abs=1e-5)
            assert row["size"] == pytest.approx(found["size"]["value"], rel=1e-5)
    assert server.stop() == 0


def test_a_kind_that_is_not_known_is_one_line_and_nothing_of_it_is_imported(joint, project, tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    for kind in ("trap:KIND", "sound"):
        task = TASKS["size"].model_copy(update={"kind": kind})
        saving.write(saving.read(project / paths.model_path("size")), tmp_path / "size.keras", task)
        bundle = bundles.Bundle("models:/size/1", {"size": tmp_path / "size.keras"}, {"size": task})
        with pytest.raises(UserError, match=kind) as caught:
            bundles.read(bundle)
        assert "\n" not in str(caught.value)
    assert "trap" not in sys.modules
