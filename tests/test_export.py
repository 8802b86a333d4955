"""`mtl export`: what is written loads elsewhere and answers as the Keras model does."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from conftest import CIFAR10, ROOT, Project, task_spec
from PIL import Image

from mtl import files
from mtl.commands import export
from mtl.data import backend, paths, store
from mtl.errors import UserError
from mtl.serving.export.exporter import replacing
from mtl.sources import decoding

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tensorflow) -> Project:
    """A folder with params.yaml, small data and a model per precision, as the DAG leaves them."""
    from mtl.config import params
    from mtl.networks import catalog, inference, saving

    root = tmp_path_factory.mktemp("export")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 24, 24, 3), dtype=np.uint8)
    (root / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    project = Project(
        root,
        os.environ
        | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{root}{os.pathsep}{ROOT / 'src'}",
        },
    )
    project.edit(lambda tree: tree["tasks"]["model2"].update(recipe="article_binary"))
    with pytest.MonkeyPatch.context() as patch:
        import keras

        patch.chdir(root)
        settings = params.read()
        dataset = store.Dataset("test", "folder", {}, "png", 30, 0, 30, (24, 24, 3), {"class": "text"})
        store.write_raw(dataset, pa.table({"split": ["test"] * 30, "class": ["cat"] * 30}), {"test": images})
        for task, classes in (("model1", CIFAR10), ("model2", ("animal", "vehicle"))):
            recipe = settings.recipe(task)
            options = {"widths": [8, 8]} if task == "model1" else recipe.options | {"dense": [16]}
            keras.config.set_dtype_policy(backend.resolve(recipe, []).precision)
            model = catalog.build(recipe.model_copy(update={"options": options}), (24, 24, 3), len(classes), images)
            keras.config.set_dtype_policy("float32")
            spec, trained = task_spec(task, classes), inference.plain(model)
            if task == "model1":
                spec = spec.model_copy(update={"temperature": 0.6})
                trained = inference.finish(trained, spec, mirror=True)
            saving.write(trained, paths.model_path(task), spec)
            store.write_targets(task_spec(task, classes), {})
    return project


def mtl(project: Project, *arguments: str) -> Result:
    """`mtl export` in this process, which has TensorFlow already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.root)
        return CliRunner().invoke(export.command, arguments)


def keras_model(project: Project, task: str):
    from mtl.networks import saving

    return saving.read(project.root / paths.model_path(task))


def encoded(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("task", ["model1", "model2"])
def test_a_saved_model_answers_as_the_keras_model(project, task):
    import tensorflow as tf

    done = project.run("mtl", "export", task)
    assert done.stdout.startswith(f"exports/{task}/1: within ")
    assert done.stderr == ""
    folder = project.root / "exports" / task / "1"
    images = np.random.default_rng(1).integers(0, 256, (70, 24, 24, 3), dtype=np.uint8)
    expected = keras_model(project, task).predict(images, verbose=0)
    loaded = tf.saved_model.load(folder)
    actual = loaded.signatures["serving_default"](images=tf.constant(images))["probabilities"]
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE)
    encodings = [encoded(Image.fromarray(image), kind) for image in images[:4] for kind in ("PNG", "JPEG")]
    decoded = np.stack([decoding.decode(content, "")[0] for content in encodings])
    actual = loaded.signatures["serving_bytes"](image_bytes=tf.constant(encodings))["probabilities"]
    np.testing.assert_allclose(actual, keras_model(project, task).predict(decoded, verbose=0), rtol=0, atol=TOLERANCE)
    assert (
        json.loads((folder / "assets.extra/classes.json").read_text())
        == files.read_json(project.root / paths.LABELS / task / "task.json")["names"]
    )


def test_the_graph_decodes_and_resizes_as_the_project_does(tensorflow):
    """All bits are equal without resizing; with it, Pillow's rounding between directions may change a pixel by 1."""
    import tensorflow as tf

    from mtl.serving.export import formats

    rng = np.random.default_rng(2)
    picture = Image.fromarray(np.kron(rng.integers(0, 256, (9, 7, 3)), np.ones((5, 6, 1))).astype(np.uint8))
    sixteen = Image.fromarray(rng.integers(0, 65536, (40, 40), dtype=np.uint16))
    kinds = [(picture.convert(mode), "PNG") for mode in ("RGB", "RGBA", "L", "LA", "P", "1")] + [(sixteen, "PNG")]
    kinds += [(picture.convert(mode), "JPEG") for mode in ("RGB", "L")]
    for image, kind in kinds:
        content = encoded(image, kind)
        same, _ = decoding.decode(content, "")
        np.testing.assert_array_equal(formats.decode(tf.constant(content), same.shape[:2]), same)
        for size in (24, 64):
            expected, _ = decoding.decode(content, "", size)
            actual = formats.decode(tf.constant(content), (size, size)).numpy()
            assert np.abs(actual.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("task", ["model1", "model2"])
def test_onnx_answers_as_the_keras_model_in_float32(project, task):
    import keras
    import onnxruntime

    done = mtl(project, task, "--format", "onnx")
    assert done.exit_code == 0, done.exception
    assert ("in its own mixed_bfloat16" in done.stdout) == (task == "model1")
    session = onnxruntime.InferenceSession(project.root / "exports" / f"{task}.onnx")
    images = np.random.default_rng(1).integers(0, 256, (70, 24, 24, 3), dtype=np.uint8)
    saved = keras_model(project, task)
    # The same network built anew under the other precision: nothing of the exporter's own cloning.
    config = json.loads(saved.to_json().replace('"mixed_bfloat16"', '"float32"'))
    float32 = keras.models.model_from_json(json.dumps(config))
    float32.set_weights(saved.get_weights())
    (actual,) = session.run(["probabilities"], {"images": images})
    np.testing.assert_allclose(actual, float32.predict(images, verbose=0), rtol=0, atol=TOLERANCE)
    classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
    assert len(classes) == actual.shape[1]


def test_onnx_without_its_packages_says_how_to_install_them(project, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    failed = mtl(project, "model1", "--format", "onnx", "-o", "x.onnx")
    assert isinstance(failed.exception, UserError)
    assert "tf2onnx" in str(failed.exception)
    assert "`pip install -c constraints.txt -r requirements-onnx.txt`" in str(failed.exception)
    assert not (project.root / "x.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["model3"], ["params.yaml", "'model3'", "model1, model2"]),
        (["model1", "-o", "params.yaml"], ["params.yaml ", "--output", "--force"]),
        (["model1", "-o", "data", "--force"], ["data ", ".onnx", "--output"]),
        (["model1", "-o", "params.yaml/1"], ["params.yaml"]),
    ],
)
def test_what_cannot_be_exported_is_named_in_one_line(project, arguments, parts):
    failed = project.run("mtl", "export", *arguments, check=False)
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: ")
    assert [part for part in parts if part not in failed.stderr] == []
    assert failed.stderr.count("\n") == 1


def test_an_earlier_export_stays_until_a_new_one_is_whole(tmp_path):
    target = tmp_path / "model.onnx"
    target.write_text("old")
    with pytest.raises(UserError, match=r"model\.onnx.*--force"), replacing(target, force=False):
        pass
    with pytest.raises(RuntimeError), replacing(target, force=True) as new:
        new.write_text("half of the n")
        raise RuntimeError
    assert target.read_text() == "old"
    with replacing(target, force=True) as new:
        new.write_text("new")
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_model_of_other_data_is_not_exported(project, tmp_path):
    other = project.copy(tmp_path / "p")
    for names in (["a", "b"], [*CIFAR10[1:], CIFAR10[0]]):  # others, and the same in another order
        task = task_spec("model1", names)
        files.write_json(other.root / paths.LABELS / "model1" / "task.json", task.model_dump())
        failed = mtl(other, "model1", "-o", "out")
        assert isinstance(failed.exception, UserError)
        assert str(failed.exception).startswith("models/model1.keras tells airplane, automobile, bird")
        assert "\n" not in str(failed.exception)
        assert not (other.root / "out").exists()
