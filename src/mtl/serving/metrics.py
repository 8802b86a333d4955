"""Metrics for Prometheus, served at /metrics."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from scipy.spatial.distance import jensenshannon

from mtl.serving.loading import SIZES
from mtl.tasks.spec import TaskSpec

WINDOW = 1000  # number of predictions that the drift is computed from
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
        self.predicted = Counter("mtl_predictions", "Predicted classes", ["task", "label"], registry=registry)
        self.drift = Gauge(
            "mtl_prediction_drift",
            f"Jensen-Shannon distance (0 to 1) of the last {WINDOW} predicted classes from the training labels",
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
        """Make a function to call with each batch's probabilities, float32 (N, K).

        `queued` returns the number of images in the task's queue.
        """
        task, frequencies = spec.name, np.array(spec.frequencies)
        counters = [self.predicted.labels(task, name) for name in spec.names]
        batches, recent = self.batches.labels(task), deque[int](maxlen=WINDOW)
        self.queue.labels(task).set_function(queued)
        self.drift.labels(task).set_function(lambda: drift(list(recent), frequencies))

        def observe(probabilities: np.ndarray) -> None:
            predicted = probabilities.argmax(axis=1)
            batches.observe(len(predicted))
            recent.extend(predicted)
            for label, count in enumerate(np.bincount(predicted)):
                if count:
                    counters[label].inc(count)

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

    def page(self, accuracy: Iterable[tuple[str, tuple[float, int]]]) -> bytes:
        """Write the page in Prometheus' text format; `accuracy`: per task the fraction right and the number judged."""
        for task, (fraction, count) in accuracy:
            self.accuracy.labels(task).set(fraction)
            self.judged.labels(task).set(count)
        return generate_latest(self.registry)


def drift(predicted: list[int], frequencies: np.ndarray) -> float:
    """Compute the Jensen-Shannon distance, base 2, of predicted labels from training frequencies (K,); NaN for none."""
    if not predicted:
        return float("nan")
    return float(jensenshannon(np.bincount(predicted, minlength=len(frequencies)), frequencies, base=2))
