"""The gateway over HTTP: what each protocol answers and refuses, limits, tokens, feedback and metrics."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import socket
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse

import numpy as np
import pytest
import tritonclient.http
from gateways import BLACK, COMPUTE, GREEN, RED, SHAPE, YELLOW, loaded, picture, serving
from images import encoded
from prometheus_client.parser import text_string_to_metric_families

from mtl.errors import UserError
from mtl.serving.gateway import Limits

IMAGES = picture(RED, GREEN)
EXPECTED = [[1.0 if i == 3 else 0.0 for i in range(10)], [1.0 if i == 8 else 0.0 for i in range(10)]]


@pytest.fixture(scope="module")
def client():
    with serving() as (client, _, _):
        yield client


def infer(data: object, shape: object = (2, *SHAPE), **changes: object) -> dict:
    tensor = {"name": "images", "shape": list(shape), "datatype": "UINT8", "data": data} | changes
    return {"inputs": [tensor]}


JSON = {"Content-Type": "application/json"}
INVOKE, PREDICT, INFER = "/model1/invocations", "/v1/models/model1:predict", "/v2/models/model1/infer"


@pytest.mark.parametrize(
    ("path", "body", "key"),
    [
        (INVOKE, {"instances": IMAGES.tolist()}, "predictions"),
        (INVOKE, {"inputs": IMAGES.tolist()}, "predictions"),
        (INVOKE, {"dataframe_split": {"data": [[i.ravel().tolist()] for i in IMAGES]}}, "predictions"),
        (INVOKE, {"dataframe_records": [{"a": i.ravel().tolist()} for i in IMAGES]}, "predictions"),
        (PREDICT, {"instances": IMAGES.tolist()}, "predictions"),
        (PREDICT, {"instances": [{"images": image.tolist()} for image in IMAGES]}, "predictions"),
        (PREDICT, {"inputs": IMAGES.tolist(), "signature_name": "serving_default"}, "outputs"),
        (PREDICT, {"inputs": {"images": IMAGES.tolist()}}, "outputs"),
    ],
)
def test_a_batch_is_answered(client, path, body, key):
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {key: EXPECTED}


@pytest.mark.parametrize("data", [IMAGES.ravel().tolist(), IMAGES.tolist()])
def test_the_open_inference_protocol_in_json(client, data):
    answer = client.post(INFER, json=infer(data) | {"id": "7"}).json()
    assert (answer["model_name"], answer["id"]) == ("model1", "7")
    assert answer["outputs"] == [
        {"name": "probabilities", "datatype": "FP32", "shape": [2, 10], "data": np.ravel(EXPECTED).tolist()}
    ]


@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True])
def test_tritons_client_gets_answers(client, binary_in, binary_out):
    triton = tritonclient.http.InferenceServerClient(client.base.removeprefix("http://"))
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("model1")
    about = triton.get_model_metadata("model1")
    (tensor_in,), (tensor_out,) = about["inputs"], about["outputs"]
    assert tensor_in["shape"] == [-1, *SHAPE]
    tensor = tritonclient.http.InferInput(tensor_in["name"], IMAGES.shape, tensor_in["datatype"])
    tensor.set_data_from_numpy(IMAGES, binary_data=binary_in)
    output = tritonclient.http.InferRequestedOutput(tensor_out["name"], binary_data=binary_out)
    answer = triton.infer("model1", [tensor], outputs=[output], request_id="a")
    np.testing.assert_array_equal(answer.as_numpy("probabilities"), EXPECTED)
    assert answer.get_response()["id"] == "a"
    with pytest.raises(tritonclient.utils.InferenceServerException, match="there is no model 'model3'"):
        triton.infer("model3", [tensor])
    triton.close()


def test_what_the_models_are(client):
    (status,) = client.get("/v1/models/model2").json()["model_version_status"]
    assert (status["state"], status["version"]) == ("AVAILABLE", "1")
    about = client.get("/v1/models/model2/metadata").json()["metadata"]["signature_def"]["signature_def"]
    (tensor,) = about["serving_default"]["outputs"].values()
    assert [size["size"] for size in tensor["tensor_shape"]["dim"]] == ["-1", "2"]
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data", "classification"]
    assert [client.get(path).status_code for path in ("/ping", "/health", "/version", "/docs")] == [200] * 4


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/models/model1{}", None),
        ("GET", "/v1/models/model1{}/metadata", None),
        ("POST", "/v1/models/model1{}:predict", {"instances": IMAGES.tolist()}),
        ("GET", "/v2/models/model1{}", None),
        ("GET", "/v2/models/model1{}/ready", None),
        ("POST", "/v2/models/model1{}/infer", infer(IMAGES.tolist())),
    ],
)
def test_the_version_that_the_metadata_names_answers_and_no_other(client, method, path, body):
    (version,) = client.get("/v2/models/model1").json()["versions"]
    plain, named = (client.request(method, path.format(part), json=body) for part in ("", f"/versions/{version}"))
    assert plain.status_code == named.status_code == 200
    assert plain.content == named.content
    assert "no version '7'; there is 1" in error_of(client.request(method, path.format("/versions/7"), json=body), 404)


def test_the_models_are_listed(client):
    assert client.get("/v1/models").json() == client.get("/v2/models").json() == {"models": ["model1", "model2"]}
    triton = tritonclient.http.InferenceServerClient(client.base.removeprefix("http://"))
    listed = triton.get_model_repository_index()
    assert [(entry["name"], entry["version"], entry["state"]) for entry in listed] == [
        ("model1", "1", "READY"),
        ("model2", "1", "READY"),
    ]
    assert all(triton.is_model_ready(entry["name"], entry["version"]) for entry in listed)
    triton.close()


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("count", [1, 2, 99])
def test_triton_names_the_best_classes(client, binary, count):
    triton = tritonclient.http.InferenceServerClient(client.base.removeprefix("http://"))
    tensor = tritonclient.http.InferInput("images", IMAGES.shape, "UINT8")
    tensor.set_data_from_numpy(picture((102, 0, 0), GREEN))
    output = tritonclient.http.InferRequestedOutput("probabilities", binary_data=binary, class_count=count)
    answer = triton.infer("model1", [tensor], outputs=[output], model_version="1")
    (about,) = answer.get_response()["outputs"]
    assert (about["datatype"], about["shape"]) == ("BYTES", [2, min(count, 10)])
    named = [[text.decode() if binary else text for text in row[:2]] for row in answer.as_numpy("probabilities")]
    assert named[0] == ["0.600000:8:ship", "0.400000:3:cat"][:count]
    assert named[1][0] == "1.000000:8:ship"
    triton.close()


def changed(value: object) -> list:
    images = IMAGES.tolist()
    images[0][0][0][0] = value
    return images


def wanted(**parameters: object) -> dict:
    """A good request whose output has parameters."""
    return infer([0] * 96) | {"outputs": [{"name": "probabilities", "parameters": parameters}]}


# What is wrong with nested lists of images, and what the message says of it.
BAD_IMAGES = [
    (changed(256), "from 0 to 255"),
    (changed(-1), "from 0 to 255"),
    (changed(10**30), "from 0 to 255"),
    (changed("1"), "text"),
    (changed(None), "null"),
    (changed(True), "true or false"),
    (changed([1]), "a list"),
    (changed({}), "an object"),
    (IMAGES[:, :3].tolist(), "shape [2, 3, 4, 3]"),
    (IMAGES[0].tolist(), "shape [4, 4, 3]"),
    ([IMAGES[0].tolist(), IMAGES[1, :2].tolist()], "different lengths"),
    ([], "empty batch"),
    ("abc", "text"),
    (7, "shape []"),
    (None, "null"),
    (np.zeros((9, *SHAPE), int).tolist(), "at most 8"),
]
BAD_BODIES = [b"", b"{", b"[1]", b"3", b'"a"', b"null", b"\xff\xfe", b'{"instances": NaN}', b"{}", b"[" * 100_000]
BAD_INFERS = [
    (infer([0] * 96, datatype="FP32"), "datatype"),
    (infer([0] * 96, name="x"), "no input 'x'"),
    (infer([0] * 95), "95 numbers"),
    (infer([0.5] * 96), "fractions"),
    (infer([256] * 96), "from 0 to 255"),
    (infer([0] * 96, shape=(96,)), "shape [96]"),
    (infer([], shape=(0, *SHAPE)), "empty batch"),
    (infer([0] * 96, shape=(2, 4, 4, "3")), "list of sizes"),
    (infer([0] * 96, shape=(2**62, *SHAPE)), "numbers"),
    (infer(None), "needs data"),
    (infer([0] * 96, parameters=3), "parameters"),
    (infer([0] * 96, parameters={"binary_data_size": 96}), "binary_data_size"),
    (infer([0] * 96) | {"id": 3}, "id"),
    (infer([0] * 96) | {"outputs": [{"name": "y"}]}, "no output 'y'"),
    (infer([0] * 96) | {"outputs": [{"name": "probabilities"}] * 2}, "one output"),
    (wanted(classification=-1), "classification"),
    (wanted(classification="3"), "classification"),
    (wanted(classification=True), "classification"),
    (wanted(shared_memory_region="r", shared_memory_byte_size=80), "shared_memory"),
    ({"inputs": []}, "one tensor"),
]


def error_of(answer, status: int = 400) -> str:
    """The message of an error, whose body is of the protocol's own form and tells nothing of the server's insides."""
    assert answer.status_code == status, answer.text
    content = answer.json()
    assert content.keys() == ({"error_code", "message"} if answer.url.endswith("/invocations") else {"error"})
    message = content.get("message") or content.get("error")
    assert 0 < len(message) < 400
    assert not any(word in message for word in ("Traceback", ".py", "\n"))
    return message


@pytest.fixture(scope="module")
def strict():
    """A gateway with narrow limits, which is asked for an answer after each refusal."""
    with serving(limits=Limits(body=20_000, batch=8, pixels=10_000, body_seconds=0.3)) as (client, _, _):
        yield client
        assert client.post(INVOKE, json={"instances": IMAGES.tolist()}).json() == {"predictions": EXPECTED}
        statuses = [sample.labels for f in families(client) if f.name == "mtl_requests" for sample in f.samples]
        assert not [labels for labels in statuses if labels["status"].startswith("5")]


def families(client):
    return list(text_string_to_metric_families(client.get("/metrics").text))


@pytest.mark.parametrize(("images", "message"), BAD_IMAGES)
@pytest.mark.parametrize(("path", "key"), [(INVOKE, "instances"), (INVOKE, "inputs"), (PREDICT, "instances")])
def test_what_is_no_image_is_refused(strict, path, key, images, message):
    error = error_of(strict.post(path, json={key: images}))
    assert message in error or "by name" in error or "lists of numbers" in error


@pytest.mark.parametrize("body", BAD_BODIES)
@pytest.mark.parametrize("path", [INVOKE, PREDICT, INFER, "/feedback"])
def test_what_is_no_json_object_is_refused(strict, path, body):
    status = 413 if len(body) > 20_000 else 400
    error_of(strict.post(path, data=body, headers=JSON), status)


@pytest.mark.parametrize(("body", "message"), BAD_INFERS)
def test_a_tensor_that_does_not_fit_is_refused(strict, body, message):
    assert message in error_of(strict.post(INFER, json=body))


@pytest.mark.parametrize(
    ("length", "tail"),
    [("x", b""), ("-1", b""), ("999999", b""), ("0", b""), (None, bytes(95)), (None, bytes(97)), ("half", bytes(96))],
)
def test_a_binary_tensor_that_does_not_fit_is_refused(strict, length, tail):
    head = json.dumps(infer(None, parameters={"binary_data_size": 96})).encode()
    length = {None: str(len(head)), "half": str(len(head) // 2)}.get(length, length)
    error_of(strict.post(INFER, data=head + tail, headers={"Inference-Header-Content-Length": length}))


@pytest.mark.parametrize(
    "body",
    [
        {"instances": IMAGES.tolist(), "inputs": IMAGES.tolist()},
        {"dataframe_split": [1]},
        {"dataframe_split": {"columns": ["a"]}},
        {"dataframe_split": {"data": []}},
        {"dataframe_split": {"data": [[1]]}},
        {"dataframe_split": {"data": [[[1, 2]]]}},
        {"dataframe_split": {"data": [[[256] * 48]]}},
        {"dataframe_split": {"data": [[[[1]] * 48]]}},
        {"dataframe_split": {"data": [[[1] * 48]], "columns": ["a", "b"]}},
        {"dataframe_split": {"data": [[[1] * 48, [1] * 48]]}},
        {"dataframe_records": {"a": 1}},
        {"instances": [{"a": 1}]},
    ],
)
def test_what_is_no_table_of_images_is_refused(strict, body):
    error_of(strict.post(INVOKE, json=body))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"instances": IMAGES.tolist(), "inputs": IMAGES.tolist()}, "either"),
        ({"instances": IMAGES.tolist(), "signature_name": "x"}, "no signature 'x'"),
        ({"instances": [{"x": 1}]}, "one input"),
        ({"instances": (IMAGES / 2 + 0.25).tolist()}, "fractions"),
    ],
)
def test_what_tensorflow_serving_would_not_take_is_refused(strict, body, message):
    assert message in error_of(strict.post(PREDICT, json=body))


@pytest.mark.parametrize("path", [INVOKE, PREDICT, INFER])
def test_a_wrong_content_type_is_refused(strict, path):
    error_of(strict.post(path, data=b"{}", headers={"Content-Type": "text/xml"}), 415)


@pytest.mark.parametrize("path", ["/model3/invocations", "/v1/models/model3:predict", "/v2/models/model3/infer"])
def test_a_model_that_is_not_there(strict, path):
    assert "there are model1, model2" in error_of(strict.post(path, json={}), 404)
    error_of(strict.delete(path), 405)


@pytest.mark.parametrize("path", ["/nothing", "/v1/models/model3", "/v2/models/model3", "/samples/7.png"])
def test_a_page_that_is_not_there(strict, path):
    error_of(strict.get(path), 404)


def test_a_body_that_is_too_large_is_refused_before_it_has_come(strict):
    error_of(strict.post(INVOKE, data=bytes(20_001)), 413)
    error_of(strict.post(INVOKE, data=iter([bytes(9_000)] * 3), headers=JSON), 413)  # chunked: no length is told


BINARY = json.dumps(infer(None, parameters={"binary_data_size": 96})).encode()


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        (INVOKE, json.dumps({"instances": IMAGES.tolist()}).encode(), JSON),
        (PREDICT, json.dumps({"instances": IMAGES.tolist()}).encode(), {}),
        (INFER, BINARY + IMAGES.tobytes(), {"Inference-Header-Content-Length": str(len(BINARY))}),
        ("/predict", encoded(picture(RED)[0]), {"Content-Type": "image/png"}),
    ],
)
@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip", "deflate", "identity"])
def test_a_compressed_body_is_read(strict, path, body, headers, encoding):
    pack = {"deflate": zlib.compress, "identity": bytes}.get(encoding, gzip.compress)
    plain = strict.post(path, data=body, headers=headers)
    assert plain.status_code == 200
    for data in (pack(body), iter(pack(body)[i : i + 7] for i in range(0, len(pack(body)), 7))):
        answer = strict.post(path, data=data, headers={**headers, "Content-Encoding": encoding})
        assert answer.status_code == 200, answer.text
        assert answer.json() | {"id": 0} == plain.json() | {"id": 0}


GOOD = json.dumps({"instances": IMAGES.tolist()}).encode()


@pytest.mark.parametrize(
    ("encoding", "body", "status", "message"),
    [
        ("gzip", gzip.compress(GOOD + b" " * 20_000, mtime=0), 413, "more than 20,000 bytes"),
        ("gzip", gzip.compress(bytes(10_000_000), mtime=0), 413, "more than 20,000 bytes"),
        ("gzip", gzip.compress(GOOD, mtime=0)[:-9], 400, "cut off"),
        ("gzip", b"", 400, "cut off"),
        ("gzip", gzip.compress(GOOD, mtime=0) + b"x", 400, "more follows"),
        ("gzip", gzip.compress(GOOD, mtime=0) * 2, 400, "more follows"),
        ("gzip", GOOD, 400, "not gzip"),
        ("deflate", gzip.compress(GOOD, mtime=0), 400, "not deflate"),
        ("br", GOOD, 415, "'br'; send gzip"),
        ("gzip, gzip", GOOD, 415, "'gzip, gzip'; send gzip"),
    ],
)
@pytest.mark.parametrize("path", [INVOKE, PREDICT])
def test_a_body_that_does_not_unpack_is_refused(strict, path, encoding, body, status, message):
    headers = {**JSON, "Content-Encoding": encoding}
    assert message in error_of(strict.post(path, data=body, headers=headers), status)


FILE = base64.b64encode(encoded(picture(RED)[0])).decode()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (INVOKE, {"instances": [{"b64": FILE}]}),
        (INVOKE, {"inputs": [FILE]}),
        (INVOKE, {"inputs": {"b64": FILE}}),
        (PREDICT, {"instances": [{"b64": FILE}]}),
        (PREDICT, {"instances": [{"images": {"b64": FILE}}]}),
        (PREDICT, {"inputs": {"images": [{"b64": FILE}]}}),
        (PREDICT, {"instances": [FILE]}),
        (INFER, infer([FILE], datatype="BYTES", shape=[1])),
    ],
)
def test_what_is_encoded_is_told_which_way_works(strict, path, body):
    error = error_of(strict.post(path, json=body))
    assert "POST /predict" in error
    assert "from 0 to 255" in error


def test_a_form_is_told_which_way_works(strict):
    error = error_of(strict.post("/predict", files={"file": ("cat.png", encoded(picture(RED)[0]))}), 415)
    assert "--data-binary @FILE" in error
    assert "--data-binary @FILE" in error_of(strict.post("/predict", json={"b64": FILE}))


@pytest.mark.parametrize("scale", [lambda x: x / 255, lambda x: x / 127.5 - 1])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (INVOKE, lambda images: {"instances": images.tolist()}),
        (INVOKE, lambda images: {"dataframe_split": {"data": [[image.ravel().tolist()] for image in images]}}),
        (PREDICT, lambda images: {"instances": images.tolist()}),
        (INFER, lambda images: infer(images.ravel().tolist())),
    ],
)
def test_scaled_pixels_are_refused(strict, path, body, scale):
    images = np.arange(96).reshape(IMAGES.shape) % 50 + 100.0
    assert strict.post(path, json=body(images)).status_code == 200
    error = error_of(strict.post(path, json=body(scale(images))))
    assert "from 0 to 255" in error
    assert "fractions" in error


def test_a_client_that_never_sends_its_body_is_let_go(strict):
    host, port = strict.base.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as slow:
        slow.sendall(b"POST /model1/invocations HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n")
        slow.sendall(b"Content-Length: 1000\r\n\r\n{")
        answer = HTTPResponse(slow)
        answer.begin()
        assert answer.status == 408
        assert b"did not arrive within 0.3 seconds" in answer.read()


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"abc", 400),
        (encoded(picture(RED)[0])[:-20], 400),
        (encoded(np.zeros((101, 100, 3), np.uint8)), 413),
    ],
)
def test_what_is_no_picture_is_refused(strict, content, status):
    error_of(strict.post("/predict", data=content), status)


@pytest.mark.parametrize(
    ("colour", "labels", "contradiction"),
    [
        (YELLOW, ("cat", "animal"), False),
        (BLACK, ("ship", "vehicle"), False),
        (RED, ("cat", "vehicle"), True),
        (GREEN, ("ship", "animal"), True),
    ],
)
@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_picture_gets_the_joint_answer(client, colour, labels, contradiction, kind):
    content = encoded(picture(colour, shape=(40, 30, 3))[0], kind)
    joint = client.post("/predict", data=content, headers={"Content-Type": f"image/{kind}"}).json()
    assert tuple(joint["answers"][task]["label"] for task in ("model1", "model2")) == labels
    assert all(answer["probability"] > 0.95 for answer in joint["answers"].values())
    assert joint["contradiction"] == contradiction == bool(joint["contradictions"])


def test_feedback_and_metrics_add_up(tmp_path):
    def ask(client, colour):
        return client.post("/predict", data=encoded(picture(colour)[0])).json()["id"]

    with serving(feedback=tmp_path / "f.db") as (client, _, _):
        right, wrong = ask(client, YELLOW), ask(client, RED)
        assert client.post("/feedback", json={"id": right, "class": "cat"}).json()["accuracy"] == {
            "model1": 1,
            "model2": 1,
        }
    # Days later, by another process.
    with serving(feedback=tmp_path / "f.db") as (client, _, _):
        judgement = client.post("/feedback", json={"id": wrong, "class": "dog"}).json()
        assert judgement["right"] == {"model1": False, "model2": False}
        assert judgement["accuracy"] == {"model1": 0.5, "model2": 0.5}
        assert judgement["counts"] == {"model1": 2, "model2": 2}
        error_of(client.post("/feedback", json={"id": "nobody", "class": "dog"}), 404)
        assert "no task knows" in error_of(client.post("/feedback", json={"id": right, "class": "cow"}))
        error_of(client.post("/feedback", json={"id": 3}))
        ask(client, GREEN), ask(client, BLACK)
        client.post(INVOKE, json={"instances": IMAGES.tolist()})
        samples = {(s.name, *sorted(s.labels.items())): s.value for f in families(client) for s in f.samples}
    assert samples["mtl_feedback_accuracy", ("task", "model1")] == 0.5
    assert samples["mtl_feedback_answers", ("task", "model1")] == 2
    assert samples["mtl_contradiction_rate",] == 0.5
    assert samples["mtl_predictions_total", ("label", "ship"), ("task", "model1")] == 3
    assert samples["mtl_predictions_total", ("label", "cat"), ("task", "model1")] == 1
    assert samples["mtl_batch_images_sum", ("task", "model1")] == 4
    assert samples["mtl_queue_images", ("task", "model1")] == 0
    assert 0.5 < samples["mtl_prediction_drift", ("task", "model1")] < 1
    route = ("route", "/{task}/invocations")
    assert samples["mtl_requests_total", ("method", "POST"), route, ("status", "200")] == 1
    assert samples["mtl_request_seconds_count", route] == 1


def test_a_token_is_asked_for_where_something_is_served():
    with serving(token="s3cret") as (client, _, _):
        body = {"json": {"instances": IMAGES.tolist()}}
        for value in ("", "Bearer wrong", "s3cret", "Basic s3cret", "Bearer", "Bearer s3cret s3cret"):
            header = {"Authorization": value} if value else {}
            answer = client.post(INVOKE, headers=header, **body)
            assert "bearer token" in error_of(answer, 401)
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        for path in ("/metrics", "/samples", "/v2/models/model1", "/nothing"):
            assert client.get(path).status_code == 401
        for path in ("/", "/ping", "/health", "/v2/health/ready", "/docs", "/openapi.json", "/static/page.js"):
            assert client.get(path).status_code == 200
        for scheme in ("Bearer", "bearer", "BEARER"):
            assert client.post(INVOKE, headers={"Authorization": f"{scheme} s3cret"}, **body).status_code == 200


def test_nothing_is_ready_before_the_models_are():
    with serving(start=False) as (client, gateway, loop):
        assert client.get("/v2/health/live").status_code == 200
        assert client.get("/v2/health/ready").status_code == 503
        answer = client.post(INVOKE, json={"instances": IMAGES.tolist()})
        assert error_of(answer, 503) == "the models are being loaded"
        assert answer.headers["Retry-After"] == "1"
        asyncio.run_coroutine_threadsafe(gateway.start(), loop).result(30)
        assert client.get("/v2/health/ready").status_code == 200


def test_a_full_queue_answers_503_with_retry_after():
    go, started = threading.Event(), threading.Event()

    def slowly(images):
        started.set()
        assert go.wait(30)
        return COMPUTE["model1"](images)

    limits = Limits(queue=8, batch=8)
    with (
        serving(lambda: loaded(compute={"model1": slowly}), limits) as (client, _, _),
        ThreadPoolExecutor(8) as pool,
    ):
        ask = {"json": {"instances": np.concatenate([IMAGES] * 4).tolist()}}
        first = pool.submit(client.post, INVOKE, **ask)
        assert started.wait(30)
        rest = [pool.submit(client.post, INVOKE, **ask) for _ in range(3)]
        # One more waits in the queue; the others are told at once to come again.
        while sum(future.done() for future in rest) < 2:
            threading.Event().wait(0.01)
        refused = [future.result() for future in rest if future.done()]
        assert {(answer.status_code, answer.headers["Retry-After"]) for answer in refused} == {(503, "1")}
        assert {error_of(answer, 503) for answer in refused} == {"8 images are waiting already; try again in a second"}
        go.set()
        assert first.result().status_code == 200
        assert sorted(future.result().status_code for future in rest) == [200, 503, 503]


def test_a_reload_takes_the_new_models_and_a_bad_one_changes_nothing():
    versions = iter(["1", "2", None, "3"])

    def load():
        version = next(versions)
        if version is None:
            raise UserError("models/model1.keras: broken")
        return loaded(version)

    with serving(load) as (client, gateway, loop):

        def reload():
            return asyncio.run_coroutine_threadsafe(gateway.reload(), loop).result(30)

        seen = []
        for expected in (True, False, True):
            assert reload() == expected
            assert client.post(INVOKE, json={"instances": IMAGES.tolist()}).json() == {"predictions": EXPECTED}
            seen.append(client.get("/v2/models/model1").json()["versions"])
        assert seen == [["2"], ["2"], ["3"]]


def test_an_error_of_the_models_tells_the_client_nothing_of_it():
    def broken(images):
        raise RuntimeError("/home/somebody/secret.py")

    with serving(lambda: loaded(compute={"model1": broken})) as (client, _, _):
        for path in (INVOKE, PREDICT):
            answer = client.post(path, json={"instances": IMAGES.tolist()})
            assert error_of(answer, 500) == "internal error; the server's log says more"
