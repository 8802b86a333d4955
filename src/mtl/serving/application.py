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

from mtl.serving import documents, joint, pixels, responses, routes, samples
from mtl.serving.feedback import Feedback
from mtl.serving.gateway import Gateway
from mtl.serving.guard import Guard
from mtl.serving.refusals import Refused

PAGE = Path(__file__).parent / "page"
# The page loads nothing from other servers; blob: and data: are the pictures that were dropped on it.
PAGE_POLICY = {"Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'"}


def build(gateway: Gateway, feedback: Feedback, token: str | None = None) -> FastAPI:
    """Build the application around `gateway`, which it closes at its end; `token`: the bearer token of clients."""

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
    responses.handle_errors(app)
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

    @router.post("/predict", **documents.with_body("", "JointAnswer", "Error", "image/png", "image/jpeg"))
    async def predict(request: Request) -> Response:
        """The answer to each task for one PNG or JPEG, and whether the models contradict each other."""
        shape = gateway.shape
        if request.headers.get("content-type", "").lower().startswith("multipart/"):
            raise Refused("forms are not supported; send the file itself as the body: curl --data-binary @FILE", 415)
        content = await request.body()
        images = await asyncio.to_thread(pixels.from_file, content, shape, gateway.limits.pixels)
        tasks, related, outputs = gateway.tasks, gateway.related, await gateway.predict_all(images)
        joint_answer = joint.answer(tasks, outputs, related)
        labels = {task: joint.bare(answer) for task, answer in joint_answer["answers"].items()}
        identity = await asyncio.to_thread(feedback.remember, labels)
        if identity is None:
            gateway.metrics.unstored.inc()
        gateway.metrics.observe_joint(joint_answer["contradiction"])
        return responses.json({"id": identity, "stored": identity is not None, **joint_answer})

    @router.post("/feedback", **documents.with_body("Truth", "Judgement", "Error"))
    async def judge(request: Request) -> Response:
        """Record the true labels of an image that was answered before, of all tasks or some.

        Returns whether each was right, and the accuracy so far of each task with the number of answers that it is of;
        of values the absolute errors and their mean so far instead, in the unit.
        """
        content = pixels.parse_json(await request.body())
        identity = content.get("id")
        if not isinstance(identity, str):
            raise Refused("the body must have id, a text")
        truth = joint.truth(gateway.tasks, content)
        judged = await asyncio.to_thread(feedback.record_truth, identity, truth)
        if judged is None:
            raise Refused("unknown id, or the id of an answer that is too old", 404)
        standing = await asyncio.to_thread(feedback.standing)
        accuracy, error = ({task: mean for task, (mean, _) in means.items()} for means in standing)
        counts = {task: count for means in standing for task, (_, count) in means.items()}
        right = {task: value for task, value in judged.items() if isinstance(value, bool)}
        errors = {task: value for task, value in judged.items() if task not in right}
        of_values = {"errors": errors, "mean_absolute_error": error} if error else {}
        return responses.json({"right": right, "accuracy": accuracy, "counts": counts, **of_values})

    @router.get("/metrics", **documents.plain("Metrics in Prometheus' text format", "text/plain"))
    async def metrics() -> Response:
        standing = await asyncio.to_thread(feedback.standing)
        return Response(gateway.metrics.page(standing), media_type=CONTENT_TYPE_LATEST)

    return router


def _page_routes(gateway: Gateway) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def page() -> Response:
        return FileResponse(PAGE / "index.html", headers=PAGE_POLICY)

    @router.get("/samples")
    async def sample_list() -> Response:
        tasks = {
            task: {"kind": spec.kind, "names": spec.names, "unit": spec.unit} for task, spec in gateway.tasks.items()
        }
        classes = joint.classes(gateway.tasks)
        return responses.json({"images": samples.choose(gateway.shape), "classes": classes, "tasks": tasks})

    @router.get("/samples/{index}.png")
    async def sample(index: int) -> Response:
        return Response(samples.read_png(index, gateway.shape), media_type="image/png")

    return router
