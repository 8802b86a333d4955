"""The FastAPI application: protocols, the joint answer, the page and the metrics behind one port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import FileResponse

from mtl.serving import answers, documents, joint, pixels, routes, samples
from mtl.serving.feedback import Feedback
from mtl.serving.gateway import Gateway
from mtl.serving.guard import Guard
from mtl.serving.refusals import Refused

PAGE = Path(__file__).parent / "page"
# The page needs nothing from elsewhere, and shows pictures that were dropped on it.
PAGE_POLICY = {"Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'"}


def build(gateway: Gateway, feedback: Feedback, token: str | None = None) -> FastAPI:
    """The application around `gateway`, which is closed with it; `token`: what clients must send as bearer token."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await gateway.close()
        feedback.close()

    app = FastAPIOffline(
        title="Multi-task learning: one model per task",
        description="All models behind one port, in three protocols.",
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(Guard, limits=gateway.limits, metrics=gateway.metrics, token=token)
    answers.handle_errors(app)
    for router in (
        routes.mlflow_routes(gateway),
        routes.tensorflow_routes(gateway),
        routes.open_inference_routes(gateway),
        _joint_routes(gateway, feedback),
        _page_routes(gateway),
    ):
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=PAGE))
    documents.describe(app, gateway, token is not None)
    return app


def _joint_routes(gateway: Gateway, feedback: Feedback) -> APIRouter:
    router = APIRouter(tags=["Joint answer"])

    @router.post("/predict", **documents.operation("", "JointAnswer", "Error", "image/png", "image/jpeg"))
    async def predict(request: Request) -> Response:
        """What every model says of one PNG or JPEG, and whether they contradict each other."""
        shape = gateway.shape
        if request.headers.get("content-type", "").lower().startswith("multipart/"):
            raise Refused("no forms are read; send the file itself as the body: curl --data-binary @FILE", 415)
        content = await request.body()
        images = await asyncio.to_thread(pixels.from_file, content, shape, gateway.limits.pixels)
        tasks, probabilities = gateway.tasks, await gateway.predict_all(images)
        said = joint.answer({task: tasks[task] for task in probabilities if task in tasks}, probabilities)
        labels = {task: answer["label"] for task, answer in said["answers"].items()}
        identity = await asyncio.to_thread(feedback.remember, labels)
        if identity is None:
            gateway.metrics.unstored.inc()
        gateway.metrics.observe_joint(said["contradiction"])
        return answers.json({"id": identity, "stored": identity is not None, **said})

    @router.post("/feedback", **documents.operation("Truth", "Judgement", "Error"))
    async def judge(request: Request) -> Response:
        """Tell the true class of an image that was answered before; gives the running accuracy of each task."""
        content = pixels.parse_json(await request.body())
        identity, name = content.get("id"), content.get("class")
        if not isinstance(identity, str) or not isinstance(name, str):
            raise Refused("the body must have id and class, both text")
        truth = joint.truth(gateway.tasks, name)
        if not truth:
            raise Refused(f"no task knows a class {name!r:.80}")
        right = await asyncio.to_thread(feedback.tell, identity, truth)
        if right is None:
            raise Refused("this id was never given, or too many answers ago", 404)
        accuracy = {task: value for task, (value, _) in (await asyncio.to_thread(feedback.accuracy)).items()}
        return answers.json({"right": right, "accuracy": accuracy})

    @router.get("/metrics", **documents.plain("Metrics in Prometheus' text format", "text/plain"))
    async def metrics() -> Response:
        accuracy = await asyncio.to_thread(feedback.accuracy)
        return Response(gateway.metrics.page(accuracy.items()), media_type=CONTENT_TYPE_LATEST)

    return router


def _page_routes(gateway: Gateway) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def page() -> Response:
        return FileResponse(PAGE / "index.html", headers=PAGE_POLICY)

    @router.get("/samples")
    async def listed() -> Response:
        tasks = gateway.tasks
        classes = sorted({name for labels in tasks.values() for name in labels.of_class or labels.classes})
        return answers.json({"images": samples.listed(gateway.shape), "classes": classes})

    @router.get("/samples/{index}.png")
    async def sample(index: int) -> Response:
        return Response(samples.png(index, gateway.shape), media_type="image/png")

    return router
