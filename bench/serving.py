"""`mtl serve` beside `mlflow models serve`: `python bench/serving.py [--seconds 20] [--rounds 3]`.

Both serve the same `article_multiclass` model, as its recipe builds it from seed 0 (untrained: the work is the same),
and are asked with the same JSON body by the same client, bench/load.py, in turn, never at once; the other server waits
idle. Client and server share the machine's cores. The client costs about 0.1 ms of a core per request, so that it
cannot measure more than some thousand requests per second. A figure is the median over the rounds.

Bytes against JSON is measured twice, the Open Inference Protocol with a binary tensor against the JSON body above: with
one image in a request (`binary_over_json_1`), and with 64, where the body is most of what a request costs besides the
model (`binary_over_json`).

The last part serves two different models in turn: 32 clients for a minute, while their file changes and SIGHUP comes
every 5 seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common
import numpy as np

SHAPE, CLASSES = (32, 32, 3), [f"class{i}" for i in range(10)]
MLFLOW, GATEWAY = "mlflow models serve", "mtl serve"
BINARY = "Content-Type: application/octet-stream"


def prepare(folder: Path) -> str:
    """Two models, their labels and an MLflow store with the first of them; returns its URI."""
    from mtl import files, tracking
    from mtl.config import params
    from mtl.data import backend
    from mtl.networks import saving
    from mtl.tasks.spec import TaskSpec

    backend.import_tensorflow()
    import keras
    import mlflow

    from mtl.networks import catalog

    images = np.random.default_rng(0).integers(0, 256, (2, *SHAPE)).astype(np.uint8)
    frequencies = (1 / len(CLASSES),) * len(CLASSES)
    groups = {name: name for name in CLASSES}
    task = TaskSpec(name="task", columns=("class",), names=tuple(CLASSES), groups=groups, frequencies=frequencies)
    recipe = params.read().recipes["article_multiclass"]
    for seed, name in ((1, "other.keras"), (0, "models/task.keras")):
        keras.utils.set_random_seed(seed)
        model = catalog.build(recipe, SHAPE, len(CLASSES), images)
        saving.write(model, folder / name, task)
    files.write_json(folder / "data/labels/task/task.json", task.model_dump())
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    experiment = mlflow.create_experiment("bench", artifact_location=(folder / "artifacts").as_uri())
    with mlflow.start_run(experiment_id=experiment) as run:
        tracking.Run(tracking.identify("bench", run.info.run_id)).log_model(model, task, (), images)
    (logged,) = mlflow.search_logged_models([experiment], output_format="list")
    return logged.model_uri


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(folder: Path, ready: str, *command: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server in a process group of its own, once `ready` answers; its process and its URL."""
    port = free_port()
    program = [sys.executable, "-c", "import sys; from mlflow.cli import cli as c; c()"]
    if command[0] == "mtl":
        program = [sys.executable, "-c", "from mtl.cli import main; main()"]
    environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "PYTHONPATH": str(common.ROOT / "src")}
    environment |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    url = f"http://127.0.0.1:{port}"
    with (folder / f"{command[0]}.log").open("wb") as log:
        process = subprocess.Popen(
            [*program, *command[1:], "--port", str(port)],
            cwd=folder, env=os.environ | environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(url + ready, timeout=2):
                break
            if process.poll() is not None:
                sys.exit(f"error: {command[0]} ended: {(folder / f'{command[0]}.log').read_text()[-2000:]}")
            time.sleep(0.2)
        yield process, url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def load(url: str, body: Path, clients: int, seconds: float, *headers: str) -> subprocess.Popen[str]:
    """Start the client; `common.answer` has what it measured."""
    return common.child("bench/load.py", url, str(body), str(clients), str(seconds), *headers)


def bodies(folder: Path) -> dict[str, tuple[Path, tuple[str, ...]]]:
    """Bodies by name with the headers they need: JSON as any client writes it, and the same images as bytes."""
    made: dict[str, tuple[Path, tuple[str, ...]]] = {}
    for count in (1, 64):
        images = np.random.default_rng(1).integers(0, 256, (count, *SHAPE)).astype(np.uint8)
        tensor: dict[str, Any] = {"name": "images", "shape": list(images.shape), "datatype": "UINT8"}
        size = {"parameters": {"binary_data_size": images.nbytes}}
        head = json.dumps({"inputs": [tensor | size], "parameters": {"binary_data_output": True}}).encode()
        contents = {
            "instances": json.dumps({"instances": images.tolist()}).encode(),
            "binary": head + images.tobytes(),
        }
        for name, content in contents.items():
            path = folder / f"{name}-{count}"
            path.write_bytes(content)
            headers = (BINARY, f"Inference-Header-Content-Length: {len(head)}") if name == "binary" else ()
            made[path.name] = (path, headers)
    return made


def reloading(process: subprocess.Popen[bytes], folder: Path, url: str, body: Path, seconds: float) -> dict[str, Any]:
    """32 clients, with the other model in the same place and SIGHUP every 5 seconds."""
    import psutil

    files = [(folder / name).read_bytes() for name in ("models/task.keras", "other.keras")]
    place, server = folder / "models/task.keras", psutil.Process(process.pid)
    client = load(url + "/task/invocations", body, 32, seconds)
    began, count, memory = time.monotonic(), 0, []
    while client.poll() is None:
        time.sleep(0.25)
        passed = time.monotonic() - began
        if passed >= 5 * (count + 1) and passed < seconds:
            count += 1
            temporary = folder / "new.keras"
            temporary.write_bytes(files[count % 2])
            temporary.replace(place)
            process.send_signal(signal.SIGHUP)
        if passed < seconds:
            memory.append((passed, server.memory_info().rss / 2**20))
    said = common.answer(client)
    with urllib.request.urlopen(url + "/metrics") as page:
        lines = [line for line in page.read().decode().splitlines() if line.startswith("mtl_reloads_total")]
    done = {line.partition('result="')[2].partition('"')[0]: float(line.split()[-1]) for line in lines}
    after = [megabytes for passed, megabytes in memory if 10 <= passed < 15] or [memory[0][1]]
    end = [megabytes for passed, megabytes in memory if passed >= seconds - 5]
    said |= {"reloads": done, "memory_after_10_s": max(after), "memory_at_end": max(end)}
    return said


def main() -> None:
    """Run the rounds and write bench/results/serving.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--reload-seconds", type=float, default=60)
    options = parser.parse_args()
    measured: dict[tuple[str, str, int], list[dict[str, Any]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        uri, made = prepare(folder), bodies(folder)
        published = ("mlflow", "models", "serve", "-m", uri, "--env-manager", "local", "--host", "127.0.0.1")
        gateway = ("mtl", "serve")
        with (
            running(folder, "/ping", *published) as (_, theirs),
            running(folder, "/v2/health/ready", *gateway) as (process, ours),
        ):
            cases = [(MLFLOW, theirs + "/invocations", "instances-1", clients) for clients in (1, 16)]
            cases += [(GATEWAY, ours + "/task/invocations", "instances-1", clients) for clients in (1, 16)]
            cases += [(GATEWAY, ours + "/task/invocations", "instances-64", 16)]
            cases += [(GATEWAY, ours + "/v2/models/task/infer", f"binary-{count}", 16) for count in (1, 64)]
            for _, url, body, clients in cases:
                path, headers = made[body]
                common.answer(load(url, path, clients, 2, *headers))
            for _ in range(options.rounds):
                for server, url, body, clients in cases:
                    path, headers = made[body]
                    said = common.answer(load(url, path, clients, options.seconds, *headers))
                    measured[server, body, clients].append(said)
                    print(f"{server}, {body}, {clients}: {said['rps']:.1f}/s, {said['failures']}", flush=True)
        with running(folder, "/v2/health/ready", *gateway) as (process, ours):
            reloads = reloading(process, folder, ours, made["instances-1"][0], options.reload_seconds)
            print(f"reloads: {reloads}")
    rows = [
        {"server": server, "body": body, "clients": clients}
        | {key: statistics.median(said[key] for said in values) for key in ("rps", "p50_ms", "p99_ms", "failed")}
        for (server, body, clients), values in measured.items()
    ]
    found = {(row["server"], row["body"], row["clients"]): row for row in rows}

    def ratio(key: str, clients: int) -> float:
        return found[GATEWAY, "instances-1", clients][key] / found[MLFLOW, "instances-1", clients][key]

    def binary(count: int) -> float:
        return found[GATEWAY, f"binary-{count}", 16]["rps"] / found[GATEWAY, f"instances-{count}", 16]["rps"]

    figures = {
        "rps_ratio_16": ratio("rps", 16),
        "rps_ratio_1": ratio("rps", 1),
        "p99_ratio_16": ratio("p99_ms", 16),
        "binary_over_json": binary(64),
        "binary_over_json_1": binary(1),
        "failed_under_reload": reloads["failed"],
        "memory_growth": reloads["memory_at_end"] / reloads["memory_after_10_s"],
    }
    used = common.versions("tensorflow", "keras", "mlflow", "fastapi", "uvicorn", "uvloop", "httptools", "orjson")
    rounds = {"rounds": options.rounds, "seconds": options.seconds}
    common.report("serving", rows, figures, used, unit="requests per second", reloads=reloads, **rounds)


if __name__ == "__main__":
    main()
