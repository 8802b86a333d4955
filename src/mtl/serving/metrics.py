"""Metrics for Prometheus, served at /metrics."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Iterator

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from mtl.serving import joint
from mtl.serving.feedback import Standing
from mtl.serving.loading import SIZES
from mtl.tasks import kinds
from mtl.tasks.spec import TaskSpec

WINDOW = 1000  # number of predictions that the drift is computed from
DEVIATIONS = np.array((-3, -2, -1, -0.5, 0, 0.5, 1, 2, 3))  # from the training mean: buckets of predicted values
LATENCIES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Metrics:
    """Counters of one gateway, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("mtl_requests", "Answered requests", ["route", "method", "status"], registry=registry)
        self.latency = Histogram(
            "mtl_request_seconds", "From the first byte to the answer", ["route"], buckets=LATENCIES, registry=registry
        )
        self.batches = Histogram("mtl_batch_images", "Images in a batch", ["task"], buckets=SIZES, registry=registry)
        self.queue = Gauge("mtl_queue_images", "Images that wait for a batch", ["task"], registry=registry)
        self.predicted = Counter("mtl_predictions", "Predicted names", ["task", "label"], registry=registry)
        self.values = Values(registry)
        self.drift = Gauge(
            "mtl_prediction_drift",
            f"Distance of the last {WINDOW} answers from the training labels: of classes Jensen-Shannon's (0 to 1), of"
            " several labels the mean difference of their shares (0 to 1), of values that of the means in deviations",
            ["task"],
            registry=registry,
        )
        self.joint = Counter("mtl_joint_answers", "Answers of /predict", registry=registry)
        self.contradictions = Counter(
            "mtl_contradictions", "Answers of /predict in which the models disagree", registry=registry
        )
        self.contradiction_rate = Gauge(
            "mtl_contradiction_rate", "Contradictions among the answers of /predict", registry=registry
        )
        self.accuracy = Gauge(
            "mtl_feedback_accuracy", "Right answers among those with feedback", ["task"], registry=registry
        )
        self.error = Gauge(
            "mtl_feedback_absolute_error",
            "Mean absolute error of the values with feedback, in their unit",
            ["task"],
            registry=registry,
        )
        self.judged = Gauge("mtl_feedback_answers", "Answers with feedback", ["task"], registry=registry)
        self.unstored = Counter(
            "mtl_feedback_unstored", "Answers of /predict that could not be stored", registry=registry
        )
        self.dropped = Counter(
            "mtl_connections_dropped",
            "Connections closed: too many (limit), too slow (silence)",
            ["reason"],
            registry=registry,
        )
        self.reloads = Counter("mtl_reloads", "Loadings of the models after the first", ["result"], registry=registry)
        self._joint = [0, 0]

    def observer(self, spec: TaskSpec, queued: Callable[[], float]) -> Callable[[np.ndarray], None]:
        """Make a function to call with each batch's outputs, float32 (N, K).

        `queued` returns the number of images in the task's queue.
        """
        task, kind = spec.name, kinds.find(spec.kind)
        counters = {name: self.predicted.labels(task, name) for name in (spec.names if spec.frequencies else ())}
        values = None if spec.mean is None or spec.deviation is None else self.values.of_task(task, edges(spec))
        batches, recent = self.batches.labels(task), collections.deque[np.ndarray](maxlen=WINDOW)
        self.queue.labels(task).set_function(queued)
        self.drift.labels(task).set_function(lambda: kind.drift(spec, np.array(recent)) if recent else math.nan)

        def observe(outputs: np.ndarray) -> None:
            batches.observe(len(outputs))
            recent.extend(outputs)
            answers = [joint.bare(answer) for answer in kind.decode(spec, outputs)]
            if values is not None:
                for answer in answers:
                    values.observe(answer)
            listed = [name for answer in answers for name in (answer if isinstance(answer, list) else [answer])]
            for name, count in collections.Counter(name for name in listed if isinstance(name, str)).items():
                if name in counters:
                    counters[name].inc(count)

        return observe

    def observe_joint(self, contradiction: bool | None) -> None:
        """Count one answer of /predict; the rate leaves out those where a contradiction is unknown (None)."""
        self.joint.inc()
        if contradiction is None:
            return
        self._joint[0] += 1
        if contradiction:
            self.contradictions.inc()
            self._joint[1] += 1
        self.contradiction_rate.set(self._joint[1] / self._joint[0])

    def page(self, standing: Standing) -> bytes:
        """Write the page in Prometheus' text format; `standing`: of the answers with feedback."""
        for gauge, means in zip((self.accuracy, self.error), standing, strict=True):
            for task, (mean, count) in means.items():
                gauge.labels(task).set(mean)
                self.judged.labels(task).set(count)
        return generate_latest(self.registry)


class Values(Collector):
    """Histograms of one name, a task each with buckets of its own, which a Histogram with labels cannot have."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.name, self.text = "mtl_predicted_value", "Predicted values, in their unit"
        self._of_tasks: dict[str, Histogram] = {}
        registry.register(self)

    def of_task(self, task: str, buckets: list[float]) -> Histogram:
        """A histogram of a task, begun anew where it had one."""
        self._of_tasks[task] = Histogram(self.name, self.text, ["task"], buckets=buckets, registry=None)
        return self._of_tasks[task].labels(task)

    def collect(self) -> Iterator[Metric]:
        """The samples of all histograms as one metric."""
        family = Metric(self.name, self.text, "histogram")
        for histogram in list(self._of_tasks.values()):
            for metric in histogram.collect():
                family.samples.extend(metric.samples)
        yield family


def edges(spec: TaskSpec) -> list[float]:
    """Values in the unit that are DEVIATIONS training deviations from the training mean, transformed."""
    assert spec.mean is not None and spec.deviation is not None
    numbers = spec.mean + DEVIATIONS * spec.deviation
    return (np.exp(numbers) if spec.transform == "log" else numbers).tolist()
