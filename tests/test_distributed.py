"""Several processes train one model: the same as one process does, and again after one of them was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import worker
from conftest import ROOT
from test_cluster import config, free_ports
from test_dag import search

from mtl.config import params
from mtl.data.feeds import Arrays
from mtl.errors import UserError
from mtl.training import hardware
from mtl.training.multiworker import loop

pytestmark = pytest.mark.usefixtures("tensorflow")


class Workers:
    """Processes of tests/worker.py, each with a folder of its own and what it printed in it."""

    def __init__(self, folder: Path, count: int, change: dict, seeds: tuple[int, ...] = (0, 0)) -> None:
        addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
        self.folders = [folder / str(index) for index in range(count)]
        self.processes = []
        for index, own in enumerate(self.folders):
            own.mkdir(parents=True, exist_ok=True)
            environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
            if count > 1:
                environment["TF_CONFIG"] = config({"worker": addresses}, index=index)
            with (own / "out").open("w") as out:
                command = [
                    sys.executable,
                    str(ROOT / "tests/worker.py"),
                    str(own),
                    json.dumps(change),
                    str(seeds[index]),
                ]
                started = subprocess.Popen(command, cwd=own, env=environment, stdout=out, stderr=subprocess.STDOUT)
            self.processes.append(started)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def wait(self) -> list[int]:
        """The exit status of each."""
        return [process.wait(timeout=300) for process in self.processes]

    def said(self, index: int) -> str:
        return (self.folders[index] / "out").read_text()

    def weights(self, index: int) -> list[np.ndarray]:
        with np.load(self.folders[index] / "weights.npz") as arrays:
            return [arrays[name] for name in arrays.files]


def close(ours: list[np.ndarray], theirs: list[np.ndarray]) -> None:
    """Within the rounding of float32 sums in another order, over the steps of these tests."""
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def in_this_process(folder: Path, change: dict) -> list[np.ndarray]:
    """The weights that one process ends with."""
    folder.mkdir()
    worker.run(folder, change)
    with np.load(folder / "weights.npz") as arrays:
        return [arrays[name] for name in arrays.files]


@pytest.mark.slow
def test_two_processes_train_the_model_of_one(tmp_path):
    folder = tmp_path / "one"
    with Workers(tmp_path / "two", 2, {"tensorboard": True}) as two:
        one = in_this_process(folder, {})
        assert two.wait() == [0, 0], two.said(0) + two.said(1)
    assert "hardware.strategy: multi_worker, each batch is shared by 2" in two.said(0)
    assert all((a == b).all() for a, b in zip(two.weights(0), two.weights(1), strict=True))
    close(two.weights(0), one)
    rows = [json.loads((place / "history.json").read_text()) for place in (two.folders[0], folder)]
    assert [row["epoch"] for row in rows[0]] == [1, 2]
    for ours, theirs in zip(*rows, strict=True):
        assert list(ours) == list(theirs) == ["epoch", "acc", "loss", "val_acc", "val_loss"]
        assert ours == pytest.approx(theirs, rel=1e-5)
    # Only the chief writes a state to go on from, and logs; the saved model has nothing of where it was trained.
    assert (two.folders[0] / "checkpoint/state.json").exists()
    assert list((two.folders[0] / "logs/task/train").glob("events.*"))
    assert not (two.folders[1] / "checkpoint").exists()
    assert not (two.folders[1] / "logs").exists()
    architectures = []
    for place in (*two.folders, folder):
        with zipfile.ZipFile(place / "model.keras") as archive:
            architectures.append((archive.read("config.json"), archive.read("metadata.json")))
    assert architectures == [architectures[0]] * 3


@pytest.mark.slow
def test_a_killed_worker_ends_the_others_and_started_again_they_go_on(tmp_path):
    change = {"epochs": 10}
    with Workers(tmp_path / "two", 2, change) as killed:
        state = killed.folders[0] / "checkpoint/state.json"
        deadline = time.monotonic() + 300
        while not state.exists():
            assert time.monotonic() < deadline, killed.said(0)
            time.sleep(0.05)
        killed.processes[1].send_signal(signal.SIGKILL)
        assert killed.wait() == [1, -signal.SIGKILL], killed.said(0)
    last = killed.said(0).strip().splitlines()[-1]
    assert last.startswith("error: another worker is gone"), killed.said(0)
    assert "Traceback" not in killed.said(0)
    done = len(json.loads(state.read_text())["history"])
    assert 1 <= done < 10
    with Workers(tmp_path / "two", 2, change) as again:
        one = in_this_process(tmp_path / "one", change)
        assert again.wait() == [0, 0], again.said(0)
    assert f"goes on after epoch {done} of 10" in again.said(0)
    assert f"trained {10 - done} epochs" in again.said(1)
    close(again.weights(0), one)
    assert all((a == b).all() for a, b in zip(again.weights(0), again.weights(1), strict=True))


@pytest.mark.slow
def test_workers_with_other_images_are_refused(tmp_path):
    with Workers(tmp_path, 2, {}, seeds=(0, 1)) as two:
        assert two.wait() == [1, 1]
    for index in range(2):
        assert "error: strategy multi_worker: 1 of the workers are given other images" in two.said(index)
        assert "Traceback" not in two.said(index)


def test_a_batch_without_an_image_for_each_worker_is_refused():
    from test_training import images, recipe

    fed = Arrays(*images(33))
    loop.check(recipe(), fed, 1)
    with pytest.raises(UserError, match="a batch of 1 is too small for 2 workers"):
        loop.check(recipe(), fed, 2)
    loop.check(recipe(steps_per_epoch=2), fed, 2)
    with pytest.raises(UserError, match="a batch of 16 is too small for 17 workers"):
        loop.check(recipe(steps_per_epoch=2), fed, 17)


def test_a_tpu_that_is_not_there_is_one_line():
    with pytest.raises(UserError, match=r"hardware.strategy: no TPU answers: .*; use auto or one_device") as caught:
        hardware.strategy(params.Hardware(threads=1, strategy="tpu"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("asked", "name"), [("auto", "one_device"), ("one_device", "one_device"), ("mirrored",) * 2])
def test_the_choice_has_a_name_and_one_line_where_it_is_not_one_device(capsys, asked, name):
    made = hardware.strategy(params.Hardware(threads=1, strategy=asked))
    assert hardware.name(made) == name
    said = "" if name == "one_device" else f"hardware.strategy: {name}, each batch is shared by 1\n"
    assert capsys.readouterr().out == said


@pytest.mark.slow
def test_two_machines_run_the_stage_and_the_chief_alone_writes(done, tmp_path):
    chief, other = done.copy(tmp_path / "chief"), done.copy(tmp_path / "other")
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    for project in (chief, other):
        project.environment = done.environment | {"PYTHONPATH": str(project.root / "src")}
        project.edit(lambda tree: tree["hardware"].update(strategy="multi_worker"))
        project.edit(lambda tree: tree["recipes"]["compact"].update(steps_per_epoch=4))
    before = (other.root / "models/model1.keras").read_bytes()

    def together(task: str, helped: str, status: int = 0) -> tuple[subprocess.CompletedProcess, str]:
        """`dvc repro` of `task` on the chief, while the other machine trains `helped`; both end with `status`."""
        helper = subprocess.Popen(
            [sys.executable, "src/train.py", helped],
            cwd=other.root,
            env=other.environment | {"TF_CONFIG": config({"worker": addresses}, index=1)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            ran = chief.run("dvc", "repro", "-s", f"train@{task}", check=not status, TF_CONFIG=own)
            said, _ = helper.communicate(timeout=60)
        finally:
            helper.kill()
        assert helper.returncode == status, said
        assert bool(ran.returncode) == bool(status), ran.stderr
        return ran, said

    own = config({"worker": addresses}, index=0)
    ran, said = together("model1", "model1")
    assert "hardware.strategy: multi_worker, each batch is shared by 2" in ran.stdout
    assert "model1: trained; worker 0, the chief, has the model" in said
    assert json.loads((chief.root / "metrics/model1.json").read_text())["test_acc"] > 0
    assert (chief.root / "models/model1.keras").read_bytes() != before
    assert (other.root / "models/model1.keras").read_bytes() == before
    assert other.run("git", "status", "--porcelain").stdout.split() == ["M", "params.yaml"]
    runs = [search(project) for project in (chief, other)]
    assert [len(found[found.experiment == "model1"]) for found in runs] == [2, 1]
    newest = runs[0][runs[0].experiment == "model1"].sort_values("start_time").iloc[-1]
    assert newest["tags.strategy"] == "multi_worker"
    # All tasks again, as after a death in model2: the chief passes over model1, and the other must not train it alone.
    assert "didn't change" in chief.run("dvc", "repro", "-s", "train@model1", TF_CONFIG=own).stdout
    ran, said = together("model2", "model1", status=1)
    assert f"worker 1 at {addresses[1]} trains model1, this one, worker 0, model2: start all" in ran.stderr
    assert f"error: worker 0 at {addresses[0]} trains model2, this one, worker 1, model1: start all" in said
    ran, said = together("model2", "model2")
    assert "model2: trained; worker 0, the chief, has the model" in said
