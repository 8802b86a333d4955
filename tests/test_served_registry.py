"""Models out of MLflow: `mtl serve --from` and `mtl.load` know of them what was logged with them, and nothing else."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import mlflow
import numpy as np
import pytest
from conftest import task_spec
from gateways import OF_CLASS, RED, TASKS, Process, picture, serving, write_project
from images import encoded

import mtl
from mtl import files, tracking
from mtl.config import params
from mtl.data import paths, store
from mtl.errors import UserError
from mtl.networks import catalog, saving
from mtl.release import judging
from mtl.serving import loading, registry
from mtl.tracking import bundles, code
from mtl.tracking.registry import champion

OWN = """
import keras
from keras import layers

import factors


@keras.saving.register_keras_serializable(package="own")
class Scale(layers.Layer):
    def call(self, x):
        return x * factors.FACTOR


def small(shape, classes):
    inputs = keras.Input(shape, dtype="uint8")
    x = Scale()(layers.Flatten()(layers.Rescaling(1 / 255)(inputs)))
    return keras.Model(inputs, layers.Dense(classes, activation="softmax")(x), name="small")
"""


def log(folder: Path, monkeypatch: pytest.MonkeyPatch, imports: tuple[str, ...] = ()):
    """Log the models of a project as its stages do, and register them."""
    monkeypatch.chdir(folder)
    uri = f"sqlite:///{folder}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    experiment = mlflow.create_experiment("e", artifact_location=(folder / "artifacts").as_uri())
    images, joint = store.read_images("test"), folder / "joint"
    shutil.copytree(paths.MODELS, joint)
    files.write_json(joint / "imports.json", list(imports))
    shutil.copy(paths.RELATIONS, joint)
    with mlflow.start_run(experiment_id=experiment) as active:
        run = tracking.Run(tracking.identify("e", active.info.run_id))
        run.log_model(saving.read(paths.model_path("model1")), TASKS["model1"], imports, images)
        run.log_joint_model(joint, images)
        assert run.lost == run.pending == []
    logged = {model.name: model.model_uri for model in mlflow.search_logged_models([experiment], output_format="list")}
    for kind, name in (("model", "model1"), ("joint", "joint")):
        mlflow.register_model(logged[kind], name)
    mlflow.MlflowClient(uri).set_registered_model_alias("joint", "champion", "1")
    return logged


@pytest.fixture(scope="module")
def logged(tensorflow, tmp_path_factory):
    """A project whose models are logged and registered: its folder, and the URIs of the logged models."""
    folder = write_project(tmp_path_factory.mktemp("registry"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield folder, log(folder, monkeypatch)
    mlflow.set_tracking_uri(None)


@pytest.fixture
def elsewhere(logged, tmp_path, monkeypatch) -> Path:
    """A folder without data, with the store of `logged`."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{logged[0]}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def another_project(folder: Path) -> None:
    """The same tasks with other groups, on images of another size."""
    write_project(folder)
    other = task_spec("model2", {value: ("even", "odd")[index % 2] for index, value in enumerate(OF_CLASS)})
    files.write_json(folder / paths.LABELS / "model2" / paths.TASK, other.model_dump())
    dataset = files.read_json(folder / paths.DATASET)
    files.write_json(folder / paths.DATASET, dataset | {"shape": [9, 9, 3]})
    (folder / "params.yaml").write_text("tasks: [")


@pytest.mark.parametrize("around", [lambda folder: None, another_project], ids=["no project", "another project"])
def test_the_working_folder_says_nothing_of_a_registered_model(logged, elsewhere, around):
    around(elsewhere)
    served = registry.load("models:/joint@champion")
    assert {task: model.version for task, model in served.items()} == {"model1": "1", "model2": "1"}
    for task, model in served.items():
        assert model.task == TASKS[task]
    with serving(lambda: served) as (client, _, _):
        answer = client.post("/predict", data=encoded(picture(RED, shape=(8, 8, 3))[0])).json()
        one, two = (answer["answers"][task]["label"] for task in ("model1", "model2"))
        assert answer["contradiction"] == (OF_CLASS[one] != two)
        judged = client.post("/feedback", json={"id": answer["id"], "class": "ship"}).json()
        assert judged["right"] == {"model1": one == "ship", "model2": two == "vehicle"}
    loaded = mtl.load("models:/joint@champion").predict(picture(RED, shape=(8, 8, 3))[0])
    assert loaded.contradicts == answer["contradiction"]
    assert {task: answer.name for task, answer in loaded.tasks.items()} == {"model1": one, "model2": two}


def test_one_tasks_model_brings_its_groups_and_its_name(logged, elsewhere):
    for uri in ("models:/model1/1", logged[1]["model"]):
        served = registry.load(uri)
        assert served["model1"].task == TASKS["model1"]
    with serving(lambda: served) as (client, _, _):
        answer = client.post("/predict", data=encoded(picture(RED, shape=(8, 8, 3))[0])).json()
        assert answer["contradiction"] is None
    assert mtl.load(logged[1]["model"]).tasks == {"model1": TASKS["model1"].names}


def test_a_model_that_an_earlier_version_logged_is_refused_and_blocks_no_promotion(tensorflow, tmp_path, monkeypatch):
    """It had the names of its answers in JSON files beside it."""
    log(write_project(tmp_path), monkeypatch)
    names = {name: task.names for name, task in TASKS.items()}
    for path in (tmp_path / "artifacts").rglob("*.keras"):
        saving.write(saving.read(path), path)  # without its task
        files.write_json(path.parent / "classes.json", names)
    for uri in ("models:/joint@champion", "models:/model1/1"):
        for ask in (registry.load, mtl.load):
            with pytest.raises(UserError, match="dvc repro") as refused:
                ask(uri)
            assert "\n" not in str(refused.value)
    lines: list[str] = []
    settings, images = params.Params.model_construct(), store.read_images("test")
    answers, _ = judging.champion_answers(champion(), settings, images, lines.append)
    assert answers == {}  # nothing to compare with
    assert "joint version 1" in lines[-1]


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("models:/joint@nobody", "joint has no alias 'nobody'; known: champion"),
        ("models:/nobody@champion", "no registered model 'nobody'"),
        ("models:/joint/9", "joint has no version '9'; known: 1"),
    ],
)
def test_what_is_not_in_the_registry_is_named(elsewhere, uri, message):
    for ask in (registry.load, mtl.load):
        with pytest.raises(UserError, match=message):
            ask(uri)
    if "@" in uri:  # the watch over an alias goes on when the alias is away
        with pytest.raises(UserError):
            registry.current_version(uri)
    else:
        assert registry.current_version(uri) is None


def test_an_alias_whose_version_is_gone_is_named(logged, elsewhere, monkeypatch):
    """Servers before MLflow's PR 24825 leave the aliases of a deleted version."""
    shutil.copy(logged[0] / "mlflow.db", elsewhere / "store.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{elsewhere}/store.db")
    with sqlite3.connect(elsewhere / "store.db") as database:
        database.execute("UPDATE registered_model_aliases SET version = 4")
    for ask in (registry.load, registry.current_version, mtl.load):
        with pytest.raises(UserError, match="joint@champion points at version 4"):
            ask("models:/joint@champion")


def test_both_keras_flavors_load_a_logged_model_and_signatures_have_outputs(logged, elsewhere):
    images = np.load(logged[0] / "data/raw/images/x_test.npy")[:3]
    expected = saving.read(logged[0] / "models/model1.keras").predict(images, verbose=0)
    mlflow.set_tracking_uri(f"sqlite:///{logged[0]}/mlflow.db")
    for flavor in (mlflow.keras, mlflow.tensorflow, mlflow.pyfunc):
        actual = flavor.load_model("models:/model1/1").predict(images)
        np.testing.assert_allclose(actual, expected, atol=1e-5)
    joint = mlflow.pyfunc.load_model("models:/joint@champion")
    table = joint.predict(images)
    assert joint.metadata.signature.outputs.input_names() == list(table.columns)
    assert [kind.name for kind in joint.metadata.signature.outputs.input_types()] == ["string", "double"] * 2
    assert joint.metadata.signature.inputs.inputs[0].shape == (-1, 8, 8, 3)
    assert [TASKS["model1"].names[row.argmax()] for row in expected] == table["model1"].tolist()


@pytest.fixture(autouse=True)
def own_layers_are_forgotten(tensorflow) -> Iterator[None]:
    """What a test registers with Keras would go into every model that MLflow saves in this process later."""
    import keras

    with mock.patch.dict(keras.saving.get_custom_objects()):
        yield


def own_project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose model1 is a network of a person's own, in a folder without __init__.py."""
    write_project(folder)
    (folder / "nets").mkdir()
    (folder / "nets" / "mine.py").write_text(OWN)
    (folder / "factors.py").write_text("FACTOR = 2.0\n")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    for name in ("nets", "nets.mine", "factors"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    network = catalog.find("nets.mine:small")((8, 8, 3), 10)
    saving.write(network, paths.model_path("model1"), TASKS["model1"])
    return folder


def test_the_code_of_a_network_is_its_module_and_what_that_imports_beside_it(tensorflow, tmp_path, monkeypatch):
    own_project(tmp_path, monkeypatch)
    (tmp_path / "unused.py").write_text("")
    assert catalog.own_modules("compact", "nets.mine:small", "article", "nets.mine:other") == ["nets.mine"]
    assert {str(path) for path in code.sources(["nets.mine"])} == {"nets/mine.py", "factors.py"}
    assert code.sources(["keras.layers"]) == {}  # installed: a requirement
    assert "keras" in code.distributions(["keras.layers", "nets.mine"])
    (tmp_path / "factors.py").write_text("import mtl.networks.blocks\nFACTOR = 2.0\n")
    names = {str(path) for path in code.sources(["nets.mine"])}
    assert {"nets/mine.py", "factors.py", "mtl/__init__.py", "mtl/networks/blocks.py"} <= names


@pytest.mark.slow
def test_a_network_with_layers_of_its_own_is_loaded_elsewhere(tensorflow, tmp_path, monkeypatch, capfd):
    """MLflow loads it with the code that was logged; `mtl.load` and `mtl serve` only if the module is named."""
    log(own_project(tmp_path / "p", monkeypatch), monkeypatch, imports=("nets.mine",))
    assert "WARNING" not in capfd.readouterr().err  # a fresh process has loaded and asked both
    mlflow.set_tracking_uri(None)
    for name in ("nets", "nets.mine", "factors"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    forget("own>Scale", monkeypatch)
    for uri in ("models:/joint@champion", "models:/model1/1"):
        for ask in (registry.load, mtl.load):
            with pytest.raises(UserError, match=r"--import nets\.mine") as refused:
                ask(uri)
            assert "\n" not in str(refused.value)
            assert "nets.mine" not in sys.modules
    with pytest.raises(UserError, match=r"cannot import 'nets\.thine'"):
        mtl.load("models:/joint@champion", imports=["nets.thine"])
    model = mtl.load("models:/joint@champion", imports=["nets.mine"])
    expected = saving.read(paths.model_path("model1")).predict(store.read_images("test")[:1], verbose=0)[0]
    answer = model.predict(store.read_images("test")[0]).tasks["model1"]
    np.testing.assert_allclose(list(answer.probabilities.values()), expected, atol=1e-5)
    assert set(registry.load("models:/joint@champion")) == {"model1", "model2"}
    server = Process(tmp_path / "p", "--from", "models:/joint@champion", "--import", "nets.mine")
    try:
        asked = {"instances": store.read_images("test")[:1].tolist()}
        actual = server.client.post("/model1/invocations", json=asked).json()["predictions"][0]
        np.testing.assert_allclose(actual, expected, atol=1e-5)
    finally:
        assert server.stop() == 0


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_elsewhere_is_logged_with_a_warning(tensorflow, tmp_path, monkeypatch, capfd):
    folder = own_project(tmp_path / "p", monkeypatch)
    monkeypatch.delitem(sys.modules, "factors")  # as where it comes from somewhere that is not seen
    logged = log(folder, monkeypatch, imports=("nets.mine",))
    mlflow.set_tracking_uri(None)
    warnings = [line for line in capfd.readouterr().err.splitlines() if line.startswith("WARNING")]
    assert len(warnings) == 2
    assert all("No module named 'factors'" in line and "nets.mine" in line for line in warnings)
    assert set(logged) == {"model", "joint"}


def forget(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Keras not know a registered layer, as in a process that never imported its module."""
    import keras

    monkeypatch.delitem(keras.saving.get_custom_objects(), name)


def test_a_bundle_whose_model_has_other_outputs_is_refused(logged, elsewhere, tmp_path):
    bundle = bundles.fetch("models:/joint@champion", tmp_path)
    wrong = bundles.Bundle(bundle.uri, bundle.files, dict.fromkeys(TASKS, task_spec("model1", ("a", "b"))))
    with pytest.raises(UserError, match=r"the model of model1 gives .*2 names"):
        bundles.read(wrong)
    assert isinstance(loading.from_bundle(bundle, bundles.read(bundle), "1")["model2"], loading.Loaded)
