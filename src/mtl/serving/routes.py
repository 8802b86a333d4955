"""The protocols' routes: read the body, ask the gateway, answer."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter, Request, Response

from mtl.serving import documents
from mtl.serving.answers import json
from mtl.serving.gateway import Gateway
from mtl.serving.protocols import mlflow, open_inference, tensorflow
from mtl.serving.refusals import Refused, busy

# What `curl -d` says it sends, and what binary tensors are; the two protocols do not ask for a content type.
LOOSELY_JSON = ("", "application/json", "application/x-www-form-urlencoded", "application/octet-stream")


def _check_content_type(request: Request) -> None:
    given = request.headers.get("content-type", "")
    if given.partition(";")[0].strip().lower() not in LOOSELY_JSON:
        raise Refused(f"content type {given!r:.80}; send application/json", 415)


def _version(request: Request) -> str | None:
    """The version of the model that the path asks for; None where it names none."""
    return request.path_params.get("version")


def mlflow_routes(gateway: Gateway) -> APIRouter:
    """MLflow's scoring server, one for each task."""
    router = APIRouter(tags=["MLflow"])

    @router.post("/{task}/invocations", **documents.operation("Invocations", "Predictions", "MlflowError"))
    async def invocations(task: str, request: Request) -> Response:
        """Probabilities of each image, as `mlflow models serve` gives them for the same model."""
        model = gateway.model(task)
        mlflow.check_content_type(request.headers.get("content-type"))
        images = mlflow.images(await request.body(), model.shape)
        return json(mlflow.answer(await gateway.predict(task, images)))

    @router.get("/ping", **documents.plain("Whether the server is up"))
    @router.get("/health", **documents.plain("Whether the server is up"))
    async def ping() -> Response:
        if not gateway.ready:
            raise busy("the models are being loaded")
        return Response("\n", media_type="application/json")

    @router.get("/version", **documents.plain("The version of MLflow"))
    async def mlflow_version() -> Response:
        return Response(version("mlflow"), media_type="application/json")

    return router


def tensorflow_routes(gateway: Gateway) -> APIRouter:
    """TensorFlow Serving's REST protocol; each path also for the version that the metadata names."""
    router = APIRouter(prefix="/v1/models", tags=["TensorFlow Serving"])

    @router.get("", **documents.reading())
    async def models() -> Response:
        """The names of all models, as KServe's version 1 protocol lists them."""
        return json({"models": [model.task for model in gateway.models]})

    @router.post("/{task}:predict", **documents.operation("PredictRequest", "PredictResponse", "Error"))
    @router.post(
        "/{task}/versions/{version}:predict", **documents.operation("PredictRequest", "PredictResponse", "Error")
    )
    async def predict(task: str, request: Request) -> Response:
        """Probabilities of each image, in row format (`instances`) or columnar format (`inputs`)."""
        model = gateway.model(task, _version(request))
        _check_content_type(request)
        images, by_row = tensorflow.images(await request.body(), model.shape)
        return json(tensorflow.answer(await gateway.predict(task, images, _version(request)), by_row))

    @router.get("/{task}", **documents.reading())
    @router.get("/{task}/versions/{version}", **documents.reading())
    async def status(task: str, request: Request) -> Response:
        """Whether the model is available."""
        return json(tensorflow.status(gateway.model(task, _version(request))))

    @router.get("/{task}/metadata", **documents.reading())
    @router.get("/{task}/versions/{version}/metadata", **documents.reading())
    async def metadata(task: str, request: Request) -> Response:
        """The model's signature."""
        return json(tensorflow.metadata(gateway.model(task, _version(request))))

    return router


def open_inference_routes(gateway: Gateway) -> APIRouter:
    """The Open Inference Protocol; each path of a model also for the version that its metadata names."""
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])

    @router.get("", **documents.reading())
    async def server() -> Response:
        """The server's name and extensions."""
        return json(open_inference.server())

    @router.get("/health/live", **documents.reading())
    async def live() -> Response:
        """Whether the server is up."""
        return json({"live": True})

    @router.get("/health/ready", **documents.reading())
    async def ready() -> Response:
        """Whether every model is loaded and warm."""
        return json({"ready": gateway.ready}, 200 if gateway.ready else 503)

    @router.get("/models", **documents.reading())
    async def models() -> Response:
        """The names of all models, as KServe lists them."""
        return json({"models": [model.task for model in gateway.models]})

    @router.post("/repository/index", **documents.reading())
    async def index() -> Response:
        """All models with their versions, as Triton lists them."""
        return json([open_inference.entry(model) for model in gateway.models])

    @router.get("/models/{task}", **documents.reading())
    @router.get("/models/{task}/versions/{version}", **documents.reading())
    async def metadata(task: str, request: Request) -> Response:
        """The model's inputs and outputs."""
        return json(open_inference.metadata(gateway.model(task, _version(request))))

    @router.get("/models/{task}/ready", **documents.reading())
    @router.get("/models/{task}/versions/{version}/ready", **documents.reading())
    async def model_ready(task: str, request: Request) -> Response:
        """Whether the model is loaded and warm."""
        return json({"name": gateway.model(task, _version(request)).task, "ready": True})

    @router.post("/models/{task}/infer", **documents.operation("InferRequest", "InferResponse", "Error"))
    @router.post(
        "/models/{task}/versions/{version}/infer", **documents.operation("InferRequest", "InferResponse", "Error")
    )
    async def infer(task: str, request: Request) -> Response:
        """Probabilities of each image; with the binary tensor extension, pixels and answers as bytes."""
        model = gateway.model(task, _version(request))
        _check_content_type(request)
        parsed = open_inference.parse(await request.body(), request.headers.get(open_inference.HEADER), model.shape)
        body, headers = open_inference.answer(
            model, parsed, await gateway.predict(task, parsed.images, _version(request))
        )
        return Response(body, headers=headers)

    return router
