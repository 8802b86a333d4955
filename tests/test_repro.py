"""`mtl repro` in real DVC repositories, whose stages wait for what they see, never for a time."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import yaml
from click.testing import CliRunner

from mtl.commands import runs
from mtl.errors import UserError
from mtl.repro.devices import device_environment, gpu_devices
from mtl.repro.scheduler import repro

SOURCES = str(Path(__file__).parents[1] / "src")
DEADLINE = 60

# Waits until FILE holds TEXT, so that stages can insist on an order without a clock.
WAIT = f"""
import os, pathlib, sys, time
file, text = pathlib.Path(sys.argv[1]), sys.argv[2]
deadline = time.monotonic() + {DEADLINE}
while "ALONE" not in os.environ and not (file.exists() and text in file.read_text()):
    if time.monotonic() > deadline:
        sys.exit(f"never came: {{text!r}} in {{file}}")
    time.sleep(0.02)
"""


def run_dvc(folder: Path, *arguments: str, **environment: str) -> None:
    command = [sys.executable, "-m", "dvc", *arguments]
    subprocess.run(command, cwd=folder, check=True, env=os.environ | environment)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    run_dvc(folder, "init", "--quiet")
    (folder / "wait.py").write_text(WAIT)
    return folder


@pytest.fixture
def root(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return Path(shutil.copytree(template, tmp_path / "repo"))


def write_pipeline(folder: Path, stages: dict[str, object]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))


def lock(folder: Path) -> dict:
    return yaml.safe_load((folder / "dvc.lock").read_text())


def started(message: str) -> list[str]:
    return [line.split()[1] for line in message.splitlines() if line.startswith("start ")]


def wait(file: str, text: str = "") -> str:
    return f"{sys.executable} wait.py {file} '{text}'"


def test_same_lock_as_sequential_and_only_what_changed(
    root: Path, tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = "echo $CUDA_VISIBLE_DEVICES > ${key}.on && " + wait("${item.file}", "${item.text}")
    part += " && sort raw in-${key} > ${key}.txt"
    write_pipeline(
        root,
        {
            "prep": {"cmd": "echo 1 > raw", "outs": ["raw"]},
            "part": {
                # Neither can end unless both run at the same time, and a ends after b is recorded.
                "foreach": {
                    "a": {"file": "dvc.lock", "text": "part@b:"},
                    "b": {"file": "a.on", "text": ""},
                },
                "do": {"cmd": part, "deps": ["raw", "in-${key}"], "outs": ["${key}.txt"]},
            },
            "unrelated": {"cmd": "false", "outs": ["never"]},
        },
    )
    join = {"cmd": "cat ../a.txt ../b.txt > all", "deps": ["../a.txt", "../b.txt"], "outs": ["all"]}
    write_pipeline(root / "study", {"join": join})
    for name in "ab":
        (root / f"in-{name}").write_text("2\n")
    sequential = shutil.copytree(root, tmp_path / "sequential")
    run_dvc(sequential, "repro", "-q", "study/dvc.yaml", ALONE="1")

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert repro(root, ["study/dvc.yaml:join", "part"], jobs=9) == 0
    assert list(lock(root)["stages"]) == ["prep", "part@b", "part@a"]
    assert lock(root) == lock(sequential)
    assert lock(root / "study") == lock(sequential / "study")
    assert {(root / f"{name}.on").read_text() for name in "ab"} == {"3\n", "5\n"}
    assert started(capfd.readouterr().err)[::3] == ["prep", "study/dvc.yaml:join"]

    shutil.rmtree(root / ".dvc/tmp/repro")
    assert repro(root, ["study/dvc.yaml"], jobs=2) == 0
    assert "up to date" in capfd.readouterr().err
    assert not list((root / ".dvc/tmp/repro").iterdir()), "a dvc process was started"

    (root / "in-b").write_text("3\n")
    assert repro(root, ["study/dvc.yaml"], jobs=2) == 0
    assert started(capfd.readouterr().err) == ["part@b", "study/dvc.yaml:join"]
    assert (root / "study/all").read_text() == "1\n2\n1\n3\n"


def test_a_stage_runs_once_also_when_forced_or_always_changed(root: Path) -> None:
    write_pipeline(
        root,
        {
            "plain": {"cmd": "echo p >> runs; echo 1 > plain", "outs": ["plain"]},
            "clock": {
                "cmd": "echo c >> runs; wc -l < runs > clock",
                "deps": ["plain"],
                "outs": ["clock"],
                "always_changed": True,
            },
            "use": {"cmd": "echo u >> runs; cp clock use", "deps": ["clock"], "outs": ["use"]},
        },
    )
    runs = root / "runs"
    assert repro(root, jobs=2) == 0
    assert runs.read_text().split() == ["p", "c", "u"]
    assert repro(root, jobs=2) == 0
    assert runs.read_text().split()[3:] == ["c", "u"]
    assert repro(root, ["clock"], jobs=2, force=True) == 0
    assert runs.read_text().split()[5:] == ["p", "c"]


def test_a_failing_stage_is_shown_and_the_running_one_is_kept(root: Path, capfd: pytest.CaptureFixture) -> None:
    # A dvc that ended can be signalled until its parent has noticed: good ends after that.
    noticed = f"timeout {DEADLINE} sh -c 'while kill -0 $(cat bad.pid); do sleep 0.05; done'"
    good = f"touch good.on && {wait('bad.pid', ' ')} && {noticed} && echo 1 >> runs && cp runs good"
    bad = f"{wait('good.on')} && echo b[oo]m && echo $PPID ' ' > bad.pid && exit 3"
    write_pipeline(
        root,
        {
            "good": {"cmd": good, "outs": ["good"]},
            "bad": {"cmd": bad, "outs": ["bad"]},
            "after": {"cmd": "cp good after", "deps": ["good"], "outs": ["after"]},
        },
    )
    assert repro(root, jobs=2) == 1
    message = capfd.readouterr().err
    assert re.search(r"'bad' failed after \d+ s; its output is in .dvc/tmp/repro/bad.log", message)
    assert message.index("'bad' failed") < message.index("done    good")
    assert "    b[oo]m\n" in message
    assert "exited with 3" in message
    assert message.endswith("mtl repro: failed: bad; not started: after\n")
    assert list(lock(root)["stages"]) == ["good"]

    assert repro(root, jobs=2, keep_going=True) == 1
    assert list(lock(root)["stages"]) == ["good", "after"]
    assert (root / "runs").read_text() == "1\n", "the kept stage ran again"


def test_a_terminal_shows_the_last_line_of_a_running_stage(root: Path) -> None:
    epochs = r"printf 'Epoch 1\r\033[1mEpoch [2]\033[0m' && "
    write_pipeline(root, {"long": {"cmd": epochs + wait("seen") + " && touch out", "outs": ["out"]}})
    terminal, child_side = os.openpty()
    code = "from mtl.commands.repro import command; command()"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=root,
        env=os.environ | {"PYTHONPATH": SOURCES, "TERM": "xterm", "COLUMNS": "60"},
        stderr=child_side,
    )
    os.close(child_side)
    shown = b""
    with suppress(OSError):  # how a terminal says that nobody has it open any more
        while chunk := os.read(terminal, 65_536):
            shown += chunk
            if b"Epoch [2]" in shown:
                (root / "seen").touch()
    assert process.wait() == 0
    assert re.search(rb"long +\d+ s  Epoch \[2\]", shown)
    assert b"Epoch 1" not in shown
    assert b"done    long" in shown


@contextmanager
def running(root: Path, command: str) -> Iterator[psutil.Popen]:
    """Start `mtl repro` as a program and wait until the second of its stages runs `command`."""
    write_pipeline(
        root,
        {
            "old": {"cmd": "echo 1 > old", "outs": ["old"]},
            "long": {"cmd": command, "deps": ["old"], "outs": ["out"]},
        },
    )

    def default_signals() -> None:
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)

    code = (
        "from mtl.commands import repro; from mtl.repro import processes; processes.GRACE_SECONDS = 1; repro.command()"
    )
    process = psutil.Popen(
        [sys.executable, "-c", code],
        cwd=root,
        env=os.environ | {"PYTHONPATH": SOURCES},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=default_signals,
    )
    try:
        subprocess.run([sys.executable, "wait.py", "pid", "\n"], cwd=root, check=True)
        yield process
    finally:
        for child in [*process.children(recursive=True), process] if process.is_running() else []:
            child.kill()


def is_alive(process: psutil.Process) -> bool:
    # Where nothing reaps orphans, as in many containers, the dead stay in the process table.
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("number", "command"),
    [
        (signal.SIGINT, "echo $$ > pid; sleep 600 & sleep 600"),
        (signal.SIGHUP, "echo $$ > pid; trap 'echo 1 > out; exit 0' TERM; sleep 600 & wait"),
        (signal.SIGTERM, "trap '' TERM; echo $$ > pid; while true; do sleep 600; done"),
    ],
    ids=["plain", "pretends success", "deaf"],
)
def test_a_signal_ends_every_process(root: Path, number: int, command: str) -> None:
    with running(root, command) as process:
        children = process.children(recursive=True)
        assert int((root / "pid").read_text()) in {child.pid for child in children}
        process.send_signal(number)
        _, message = process.communicate(timeout=DEADLINE)
        assert process.returncode == 128 + number
        assert "stopped long" in message
        assert [child for child in children if is_alive(child)] == []
    assert list(lock(root)["stages"]) == ["old"]


@pytest.mark.parametrize(
    "command",
    ["echo $$ > pid; sleep 600 & sleep 600", "trap 'exit 0' TERM; echo $$ > pid; while true; do sleep 1; done"],
    ids=["plain", "pretends success"],
)
def test_kill_9_ends_every_process_too(root: Path, command: str) -> None:
    with running(root, command) as process:
        started_by = process.children(recursive=True)
        assert int((root / "pid").read_text()) in {child.pid for child in started_by}
        process.kill()
        process.wait()
        _, alive = psutil.wait_procs(started_by, timeout=DEADLINE)
        assert [child for child in alive if is_alive(child)] == []
    assert list(lock(root)["stages"]) == ["old"]
    # Nothing is held: the next one runs.
    write_pipeline(root, {"long": {"cmd": "echo 1 > out", "deps": ["old"], "outs": ["out"]}})
    assert repro(root) == 0


def test_what_a_stage_leaves_running_on_purpose_stays(root: Path) -> None:
    write_pipeline(root, {"server": {"cmd": "sleep 600 & echo $! > pid", "outs": ["pid"]}})
    assert repro(root) == 0
    left = psutil.Process(int((root / "pid").read_text()))
    assert is_alive(left)
    left.kill()


def test_a_second_run_is_refused(root: Path, capfd: pytest.CaptureFixture) -> None:
    with running(root, "echo $$ > pid; sleep 600") as process:
        assert repro(root, jobs=1) == 1
        message = capfd.readouterr().err
        assert message == f"mtl repro: already running in this repository (process {process.pid})\n"
        assert process.is_running()


@pytest.mark.parametrize(
    ("pipeline", "targets", "jobs", "message"),
    [
        ("stages: {}", [], 0, "--jobs must be 1 or more, not 0"),
        ("stages: {}", ["nope"], 1, "Stage 'nope' not found"),
        ("stages: {}", ["nope/dvc.yaml"], 1, "does not exist"),
        ("stages: [", [], 1, "unable to read: 'dvc.yaml'"),
        (None, [], 1, "not inside of a DVC repository"),
    ],
)
def test_bad_input_is_one_line(
    root: Path,
    capfd: pytest.CaptureFixture,
    pipeline: str | None,
    targets: list[str],
    jobs: int,
    message: str,
) -> None:
    if pipeline is None:
        shutil.rmtree(root / ".dvc")
    else:
        (root / "dvc.yaml").write_text(pipeline)
    assert repro(root, targets, jobs) == 1
    error = capfd.readouterr().err
    assert error.startswith("mtl repro: ") and message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("text", ["", "schema: '2.0'\nstages:\n  a:\n    cm", "schema: '2.0'\nstages:\n  a: ["])
def test_what_a_full_disk_left_of_the_lock_is_to_be_removed(
    root: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    write_pipeline(root, {"a": {"cmd": "echo 1 > a", "outs": ["a"]}})
    (root / "dvc.lock").write_text(text)
    assert repro(root) == 1
    (said,) = capfd.readouterr().err.splitlines()
    monkeypatch.chdir(root)
    with pytest.raises(UserError) as caught:
        CliRunner().invoke(runs.command, catch_exceptions=False)
    for line in (said, str(caught.value)):
        assert "dvc.lock" in line
        assert "remove it" in line
    (root / "dvc.lock").unlink()  # the advice works
    assert repro(root) == 0


def test_each_job_gets_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_environment(1, []) == {}
    shared = [device_environment(slot, ["3", "5"])["CUDA_VISIBLE_DEVICES"] for slot in range(3)]
    assert shared == ["3", "5", "3"]
    assert device_environment(0, ["3"])["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert gpu_devices({"CUDA_VISIBLE_DEVICES": "2, GPU-8a"}) == ["2", "GPU-8a"]
    assert gpu_devices({"CUDA_VISIBLE_DEVICES": "-1"}) == []
    for answer, devices in [("echo 0; echo 1", ["0", "1"]), ("echo no driver; exit 9", [])]:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{answer}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert gpu_devices({}) == devices
    monkeypatch.setenv("PATH", "")
    assert gpu_devices({}) == []


def test_the_command_is_there_without_dvc() -> None:
    code = "import sys, mtl.repro; sys.exit('dvc' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": SOURCES}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
