"""The gateway, its client and exports with a task of each kind."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import jsonschema_rs
import mixed
import numpy as np
import pytest
from click.testing import CliRunner
from gateways import Client, serving
from images import encoded
from mixed import BLACK, BLUE, GREEN, RED, SIZE, TASKS
from prometheus_client.parser import text_string_to_metric_families

from mtl.commands import export
from mtl.data import paths
from mtl.errors import UserError
from mtl.serving import loading
from mtl.serving.feedback import Feedback, Standing
from mtl.serving.metrics import Metrics, edges
from mtl.serving.refusals import Refused
from mtl.serving.request import client as requests
from mtl.serving.request import comparison
from mtl.tasks.spec import TaskSpec

OUTPUT = {"shape": "probabilities", "flaws": "probabilities", "size": "values"}
IMAGES = np.stack([mixed.picture(colour) for colour in (RED, GREEN, BLUE, BLACK)])


@pytest.fixture(scope="module")
def project(tensorflow, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mixed.write(tmp_path_factory.mktemp("mixed"))


@pytest.fixture(scope="module")
def served(project) -> dict[str, loading.Loaded]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        return loading.from_folder(paths.MODELS)


@pytest.fixture(scope="module")
def outputs(project) -> dict[str, np.ndarray]:
    from mtl.networks import saving

    return {task: saving.read(project / paths.model_path(task)).predict(IMAGES, verbose=0) for task in TASKS}


@pytest.fixture
def gateway(served) -> Iterator[Client]:
    with serving(lambda: served) as (client, _, _):
        yield client


def ask(client: Client, colour: tuple[int, int, int]) -> dict:
    answer = client.post("/predict", data=encoded(mixed.picture(colour)))
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("task", TASKS)
def test_every_protocol_gives_the_outputs_as_they_are(gateway, outputs, task):
    expected, body = outputs[task], IMAGES.tolist()
    tensor = {"name": "images", "shape": list(IMAGES.shape), "datatype": "UINT8", "data": body}
    (output,) = gateway.post(f"/v2/models/{task}/infer", json={"inputs": [tensor]}).json()["outputs"]
    answers = [
        gateway.post(f"/{task}/invocations", json={"instances": body}).json()["predictions"],
        gateway.post(f"/v1/models/{task}:predict", json={"inputs": body}).json()["outputs"],
        np.reshape(output["data"], output["shape"]),
    ]
    for answer in answers:
        np.testing.assert_allclose(answer, expected, rtol=1e-5)
    (about,) = gateway.get(f"/v2/models/{task}").json()["outputs"]
    signatures = gateway.get(f"/v1/models/{task}/metadata").json()["metadata"]["signature_def"]["signature_def"]
    (name,) = signatures["serving_default"]["outputs"]
    assert about == {"name": OUTPUT[task], "datatype": "FP32", "shape": [-1, expected.shape[1]]}
    assert output["name"] == name == OUTPUT[task]

    wanted = {"inputs": [tensor], "outputs": [{"name": OUTPUT[task], "parameters": {"classification": 1}}]}
    answer = gateway.post(f"/v2/models/{task}/infer", json=wanted)
    assert answer.status_code == (200 if task == "shape" else 400)
    assert task == "shape" or ("classes" in answer.json()["error"] and "\n" not in answer.json()["error"])


def test_a_picture_gets_an_answer_of_each_kind(gateway, outputs):
    joint = ask(gateway, GREEN)
    shape, (dent, scratch), (size,) = (outputs[task][1] for task in ("shape", "flaws", "size"))
    assert scratch > 0.5  # but not as likely as its threshold, which the model alone knows
    assert joint["answers"] == {
        "flaws": {"labels": ["dent"], "probabilities": pytest.approx({"dent": dent, "scratch": scratch})},
        "shape": {"label": "disc", "probability": pytest.approx(shape[0])},
        "size": {"value": pytest.approx(size), "unit": "mm"},
    }
    assert joint["contradiction"] is None
    document = gateway.get("/openapi.json").json()
    jsonschema_rs.validate(document["components"]["schemas"]["JointAnswer"], joint)
    truth = {"id": joint["id"], "labels": {"shape": "bar", "size": 99, "flaws": []}}
    jsonschema_rs.validate(document["components"]["schemas"]["Truth"], truth)
    judged = gateway.post("/feedback", json=truth).json()
    jsonschema_rs.validate(document["components"]["schemas"]["Judgement"], judged)


def test_feedback_counts_what_is_right_and_how_far_values_are_off(served, tmp_path):
    with serving(lambda: served, feedback=tmp_path / "f.db") as (gateway, _, _):
        first, second = ask(gateway, GREEN)["id"], ask(gateway, BLUE)["id"]
        judged = gateway.post("/feedback", json={"id": first, "labels": {"flaws": ["dent"]}}).json()
        assert judged == {"right": {"flaws": True}, "accuracy": {"flaws": 1}, "counts": {"flaws": 1}}
        labels = {"flaws": ["scratch", "dent"], "size": 2 * SIZE + 5}
        judged = gateway.post("/feedback", json={"id": second, "labels": labels}).json()
        assert judged == {
            "right": {"flaws": False},
            "accuracy": {"flaws": 0.5},
            "counts": {"flaws": 2, "size": 1},
            "errors": {"size": pytest.approx(5)},
            "mean_absolute_error": {"size": pytest.approx(5)},
        }
    with serving(lambda: served, feedback=tmp_path / "f.db") as (gateway, _, _):
        judged = gateway.post("/feedback", json={"id": first, "labels": {"size": SIZE - 1, "shape": "disc"}}).json()
        assert (judged["right"], judged["errors"]) == ({"shape": True}, {"size": pytest.approx(1)})
        assert judged["mean_absolute_error"] == {"size": pytest.approx(3)}
        assert judged["counts"] == {"flaws": 2, "shape": 1, "size": 2}
        families = text_string_to_metric_families(gateway.get("/metrics").text)
        samples = {(s.name, s.labels.get("task")): s.value for f in families for s in f.samples}
    assert samples["mtl_feedback_accuracy", "flaws"] == 0.5
    assert samples["mtl_feedback_absolute_error", "size"] == pytest.approx(3)
    assert samples["mtl_feedback_answers", "size"] == 2
    assert ("mtl_feedback_accuracy", "size") not in samples


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"labels": {"size": "100"}}, "size"),
        ({"labels": {"size": True}}, "size"),
        ({"labels": {"size": [100]}}, "size"),
        ({"labels": {"size": None}}, "size"),
        ({"labels": {"flaws": "dent"}}, "flaws"),
        ({"labels": {"flaws": ["rust"]}}, "flaws"),
        ({"labels": {"flaws": [["dent"]]}}, "flaws"),
        ({"labels": {"shape": 3}}, "shape"),
        ({"labels": {"shape": "disc", "size": "large"}}, "size"),
        ({"class": "disc"}, "labels"),
    ],
)
def test_a_truth_of_another_kind_is_refused_in_one_line_and_counts_nothing(gateway, body, name):
    identity = ask(gateway, RED)["id"]
    answer = gateway.post("/feedback", json={"id": identity, **body})
    assert answer.status_code == 400
    assert name in answer.json()["error"] and "\n" not in answer.json()["error"]
    counts = gateway.post("/feedback", json={"id": identity, "labels": {"flaws": []}}).json()["counts"]
    assert counts == {"flaws": 1}


def test_the_answers_of_the_last_version_count_and_new_ones_are_added(tmp_path):
    database = sqlite3.connect(tmp_path / "f.db")
    database.executescript("""
        CREATE TABLE predictions (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL);
        CREATE TABLE answers (
            number INTEGER NOT NULL REFERENCES predictions ON DELETE CASCADE,
            task TEXT NOT NULL, label TEXT NOT NULL, truth TEXT, PRIMARY KEY (number, task)
        ) WITHOUT ROWID;
        CREATE INDEX judged ON answers (task, label, truth) WHERE truth IS NOT NULL;
        INSERT INTO predictions (id) VALUES ('old'), ('older');
        INSERT INTO answers VALUES (1, 'digit', '3', '3'), (2, 'digit', '4', NULL), (2, 'size', 'large', NULL);
    """)
    database.close()
    for _ in range(2):  # the second opening has nothing to change
        feedback = Feedback(tmp_path / "f.db")
        assert feedback.standing() == Standing({"digit": (1.0, 1)}, {})
        feedback.close()
    feedback = Feedback(tmp_path / "f.db")
    assert feedback.record_truth("older", {"digit": "5"}) == {"digit": False}
    with pytest.raises(Refused, match="large"):
        feedback.record_truth("older", {"size": 3.0})
    new = feedback.remember({"size": 3.5, "flaws": ["dent"], "digit": "3"})
    assert new is not None
    assert feedback.record_truth(new, {"size": 3.0, "flaws": ["dent"]}) == {"size": 0.5, "flaws": True}
    assert feedback.standing() == Standing({"digit": (0.5, 2), "flaws": (1.0, 1)}, {"size": (0.5, 1)})
    feedback.close()


def test_answers_that_are_no_numbers_are_infinitely_far_off():
    feedback = Feedback(":memory:")
    identity = feedback.remember({"size": float("nan")})
    assert identity is not None
    assert feedback.record_truth(identity, {"size": 1.0}) == {"size": float("inf")}
    assert feedback.standing().absolute_error == {"size": (float("inf"), 1)}
    feedback.close()


def test_metrics_count_names_and_values_and_their_drift(gateway):
    for task in TASKS:
        gateway.post(f"/{task}/invocations", json={"instances": IMAGES.tolist()})
    families = list(text_string_to_metric_families(gateway.get("/metrics").text))
    (named,) = [family for family in families if family.name == "mtl_predictions"]
    counts = {(s.labels["task"], s.labels["label"]): s.value for s in named.samples if s.name.endswith("_total")}
    assert counts == {("shape", "disc"): 3, ("shape", "bar"): 1, ("flaws", "dent"): 1, ("flaws", "scratch"): 0}
    (values,) = [family for family in families if family.name == "mtl_predicted_value"]
    buckets = {float(s.labels["le"]): s.value for s in values.samples if s.name.endswith("_bucket")}
    assert buckets[edges(TASKS["size"])[3]] == 0  # below the training mean
    assert (buckets[2 * SIZE], buckets[float("inf")]) == (4, 4)
    drift = {s.labels["task"]: s.value for f in families if f.name == "mtl_prediction_drift" for s in f.samples}
    assert drift["flaws"] == pytest.approx((abs(1 / 4 - 1 / 2) + abs(0 - 1 / 4)) / 2)
    assert drift["size"] == pytest.approx(1 / 2)  # one of four is two deviations above the mean
    assert 0 < drift["shape"] < 1


def test_buckets_of_a_logarithmic_value_are_in_its_unit():
    spec = TaskSpec(
        name="a", kind="value", columns=("a",), names=("a",), transform="log", mean=np.log(8), deviation=np.log(2)
    )
    assert np.allclose(edges(spec), [1, 2, 4, 32**0.5, 8, 128**0.5, 16, 32, 64])
    metrics = Metrics()
    metrics.observer(spec, lambda: 0)(np.array([[8.0], [16.0]], np.float32))
    assert metrics.registry.get_sample_value("mtl_prediction_drift", {"task": "a"}) == pytest.approx(0.5)
    metrics.observer(spec, lambda: 0)  # a reload begins anew
    assert metrics.registry.get_sample_value("mtl_predicted_value_count", {"task": "a"}) == 0


@pytest.mark.parametrize("kind", ["nowhere:KIND", "this:d", "order"])
def test_a_kind_that_is_not_known_here_is_refused_and_never_imported(project, kind):
    from mtl.networks import saving

    network = saving.read(project / paths.model_path("size"))
    strange = TASKS["size"].model_copy(update={"kind": kind})
    with pytest.raises(UserError, match=kind) as refused:
        loading.compile_models({"size": network}, {"size": strange}, "1")
    assert "\n" not in str(refused.value)
    assert kind.partition(":")[0] not in sys.modules
    assert ("--import" in str(refused.value)) == (":" in kind)


def test_a_request_shows_answers_and_labels_of_each_kind(project, served, monkeypatch):
    monkeypatch.chdir(project)
    with serving(lambda: served) as (gateway, _, _):
        table, errors = comparison.compare([gateway.base], 1, None, retries=0, timeout=30)
    rows = [line.split("  ") for line in table.splitlines()]
    assert errors == []
    cells = [[cell.strip() for cell in row if cell.strip()][:4] for row in rows[1:]]
    assert [cell[:3] for cell in cells] == [
        ["shape", "disc", "disc"],
        ["flaws", "dent, scratch", "dent"],
        ["size", "100 mm", "100 mm"],
    ]
    assert [cell[3] for cell in cells[1:]] == ["-", "-"]


def test_a_row_of_the_joint_model_may_hold_any_kind():
    row = {"shape": "bar", "shape_probability": 0.75, "flaws": "dent|scratch", "size": 12.0}
    assert requests.read("joint", {"predictions": [row]}, TASKS) == {
        "shape": ("bar", 0.75),
        "flaws": ("dent, scratch", None),
        "size": ("12 mm", None),
    }
    assert requests.read("joint", {"predictions": [{"flaws": ""}]}, TASKS) == {"flaws": ("none", None)}
    del row["shape_probability"]
    with pytest.raises(ValueError, match="joint"):
        requests.read("joint", {"predictions": [row]}, TASKS)


@pytest.mark.parametrize("task", ["flaws", "size"])
def test_an_export_names_its_outputs_and_says_what_they_mean(project, outputs, tmp_path, monkeypatch, task):
    import tensorflow as tf

    monkeypatch.chdir(project)
    done = CliRunner().invoke(export.command, [task, "-o", str(tmp_path / "1")])
    assert done.exit_code == 0, done.exception
    signature = tf.saved_model.load(tmp_path / "1").signatures["serving_default"]
    np.testing.assert_allclose(signature(images=tf.constant(IMAGES))[OUTPUT[task]], outputs[task], rtol=1e-4)
    document = json.loads((tmp_path / "1/assets.extra/task.json").read_text())
    assert TaskSpec.model_validate(document) == TASKS[task]


def test_an_onnx_file_says_what_a_value_means(project, outputs, tmp_path, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    monkeypatch.chdir(project)
    done = CliRunner().invoke(export.command, ["size", "--format", "onnx", "-o", str(tmp_path / "size.onnx")])
    assert done.exit_code == 0, done.exception
    session = onnxruntime.InferenceSession(tmp_path / "size.onnx")
    np.testing.assert_allclose(session.run(["values"], {"images": IMAGES})[0], outputs["size"], rtol=1e-4)
    document = json.loads(session.get_modelmeta().custom_metadata_map["task"])
    assert TaskSpec.model_validate(document) == TASKS["size"]
