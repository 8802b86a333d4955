"""Routes of the three protocols: read the body, ask the gateway, respond."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter, Request, Response

from mtl.serving import documents
from mtl.serving.gateway import Gateway
from mtl.serving.protocols import mlflow, open_inference, tensorflow
from mtl.serving.refusals import Refused, busy
from mtl.serving.responses import json

# The two protocols ask for no content type: `curl -d` calls JSON a form, and binary tensors are an octet stream.
CONTENT_TYPES = ("", "application/json", "application/x-www-form-urlencoded", "application/octet-stream")


def _check_content_type(request: Request) -> None:
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() not in CONTENT_TYPES:
        raise Refused(f"content type {content_type!r:.80}; send application/json", 415)


def _version(request: Request) -> str | None:
    """The version of the model in the path; None if it has none."""
    return request.path_params.get("version")


def mlflow_routes(gateway: Gateway) -> APIRouter:
    """Make the routes of MLflow's scoring server, for each task."""
    router = APIRouter(tags=["MLflow"])

    @router.post("/{task}/invocations", **documents.with_body("Invocations", "Predictions", "MlflowError"))
    async def invocations(task: str, request: Request) -> Response:
        """The outputs for each image, as `mlflow models serve` of the same model returns them."""
        model = gateway.model(task)
        mlflow.check_content_type(request.headers.get("content-type"))
        images = mlflow.images(await request.body(), model.shape)
        return json(mlflow.answer(await gateway.predict(task, images)))

    @router.get("/ping", **documents.plain("Status of the server"))
    @router.get("/health", **documents.plain("Status of the server"))
    async def ping() -> Response:
        if not gateway.ready:
            raise busy("the models are being loaded")
        return Response("\n", media_type="application/json")

    @router.get("/version", **documents.plain("Version of MLflow"))
    async def mlflow_version() -> Response:
        return Response(version("mlflow"), media_type="application/json")

    return router


def tensorflow_routes(gateway: Gateway) -> APIRouter:
    """Make the routes of TensorFlow Serving's REST protocol, each also with the version that the metadata names."""
    router = APIRouter(prefix="/v1/models", tags=["TensorFlow Serving"])

    @router.get("", **documents.without_body())
    async def models() -> Response:
        """Names of all models, as KServe's version 1 protocol lists them."""
        return json({"models": [model.task.name for model in gateway.models]})

    @router.post("/{task}:predict", **documents.with_body("PredictRequest", "PredictResponse", "Error"))
    @router.post(
        "/{task}/versions/{version}:predict", **documents.with_body("PredictRequest", "PredictResponse", "Error")
    )
    async def predict(task: str, request: Request) -> Response:
        """The outputs for each image, in row format (`instances`) or columnar format (`inputs`)."""
        model = gateway.model(task, _version(request))
        _check_content_type(request)
        images, by_row = tensorflow.images(await request.body(), model.shape)
        return json(tensorflow.answer(await gateway.predict(task, images, _version(request)), by_row))

    @router.get("/{task}", **documents.without_body())
    @router.get("/{task}/versions/{version}", **documents.without_body())
    async def status(task: str, request: Request) -> Response:
        """Status of the model."""
        return json(tensorflow.status(gateway.model(task, _version(request))))

    @router.get("/{task}/metadata", **documents.without_body())
    @router.get("/{task}/versions/{version}/metadata", **documents.without_body())
    async def metadata(task: str, request: Request) -> Response:
        """Signature of the model."""
        return json(tensorflow.metadata(gateway.model(task, _version(request))))

    return router


def open_inference_routes(gateway: Gateway) -> APIRouter:
    """Make the routes of the Open Inference Protocol, those of a model also with the version in its metadata."""
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])

    @router.get("", **documents.without_body())
    async def server() -> Response:
        """Name and extensions of the server."""
        return json(open_inference.server())

    @router.get("/health/live", **documents.without_body())
    async def live() -> Response:
        """Liveness of the server."""
        return json({"live": True})

    @router.get("/health/ready", **documents.without_body())
    async def ready() -> Response:
        """Readiness: every model is loaded and warm."""
        return json({"ready": gateway.ready}, 200 if gateway.ready else 503)

    @router.get("/models", **documents.without_body())
    async def models() -> Response:
        """Names of all models, as KServe lists them."""
        return json({"models": [model.task.name for model in gateway.models]})

    @router.post("/repository/index", **documents.without_body())
    async def index() -> Response:
        """All models with their versions, as Triton lists them."""
        return json([open_inference.index_entry(model) for model in gateway.models])

    @router.get("/models/{task}", **documents.without_body())
    @router.get("/models/{task}/versions/{version}", **documents.without_body())
    async def metadata(task: str, request: Request) -> Response:
        """Inputs and outputs of the model."""
        return json(open_inference.metadata(gateway.model(task, _version(request))))

    @router.get("/models/{task}/ready", **documents.without_body())
    @router.get("/models/{task}/versions/{version}/ready", **documents.without_body())
    async def model_ready(task: str, request: Request) -> Response:
        """Readiness of the model: it is loaded and warm."""
        return json({"name": gateway.model(task, _version(request)).task.name, "ready": True})

    @router.post("/models/{task}/infer", **documents.with_body("InferRequest", "InferResponse", "Error"))
    @router.post(
        "/models/{task}/versions/{version}/infer", **documents.with_body("InferRequest", "InferResponse", "Error")
    )
    async def infer(task: str, request: Request) -> Response:
        """The outputs for each image; with the binary tensor extension, pixels and answers as bytes."""
        model = gateway.model(task, _version(request))
        _check_content_type(request)
        parsed = open_inference.parse(await request.body(), request.headers.get(open_inference.HEADER), model)
        body, headers = open_inference.answer(
            model, parsed, await gateway.predict(task, parsed.images, _version(request))
        )
        return Response(body, headers=headers)

    return router
