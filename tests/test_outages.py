"""An MLflow server that goes away at a chosen request: nothing lost, nothing twice, in the end as if it had stayed."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner
from conftest import ROOT
from outages import DATASET, Door, Tracking, save_model, stage, stored
from rich.console import Console

from mtl import tracking
from mtl.commands import log
from mtl.config import params
from mtl.errors import UserError
from mtl.repro.display import succeeded
from mtl.repro.processes import Job
from mtl.tracking import server as server_module
from mtl.tracking.outbox import pending

STAGE_OF_A_PROCESS = """
import sys
from pathlib import Path
from mtl import tracking
from mtl.config import params

with tracking.stage_run("load_data", params.read(Path(sys.argv[1]))) as run:
    run.log_metrics({"a": 1.0})
    print("logged", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = Tracking(tmp_path_factory.mktemp("server"))
    try:
        running.start()
        yield running
    finally:
        running.kill()


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("saved"))


@pytest.fixture(scope="module")
def opened(server):
    door = Door(server.port)
    yield door
    door.close()


@pytest.fixture
def door(opened, tmp_path, monkeypatch):
    """The server behind a door, in a folder where nothing is pending."""
    opened.open()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", opened.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")
    monkeypatch.setattr(server_module, "SECONDS", 120)  # however slow the machine
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri(opened.uri)
    return opened


@pytest.fixture(scope="module")
def whole(opened, saved, tmp_path_factory) -> dict:
    """What an undisturbed stage leaves in the store."""
    opened.open()
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", opened.uri)
        mlflow.set_tracking_uri(opened.uri)
        mlflow.create_experiment("load_data")  # or this stage would make other requests than the next ones
        first = len(opened.seen)
        run = stage(saved)
        assert run.lost == run.pending == []
        assert list(folder.iterdir()) == []
        there = stored(run, folder / "downloads")
    assert [len(there[key]) for key in ("models", "artifacts", "inputs")] == [1, 2, 1]
    assert there["metrics"]["train_loss"] == [(1, 1.0), (2, 0.5)]
    sent = opened.seen[first:]
    there["requests"] = range(sent.index("POST /api/2.0/mlflow/runs/create") + 1, sent.index(END) + 1)
    return there


END = "POST /api/2.0/mlflow/runs/update"


def log_pending() -> list[str]:
    return list(pending.log_all())


def same(run: tracking.Run, whole: dict, tmp_path: Path) -> bool:
    """Whether all of a run is there once, and nothing is left over."""
    left = [path for path in (tmp_path / ".pending").iterdir() if path.is_dir()]
    return left == [] and stored(run, tmp_path / "downloads") == {k: v for k, v in whole.items() if k != "requests"}


PHASES = {
    "as the model is made, the answer lost": ("POST .*/logged-models$", "lost"),
    "at the upload of the model": ("PUT .*/models/m-", "lost"),
}


@pytest.mark.parametrize("phase", PHASES)
def test_what_an_outage_left_is_logged_once(door, saved, whole, tmp_path, capsys, phase):
    door.at_first(*PHASES[phase])
    run = stage(saved)
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("MLflow: cannot log ")
    assert said[0].endswith("; the stage goes on, what it logs is written down")
    assert said[-1].startswith("MLflow: not logged: ")
    assert said[-1].endswith("end of the run; `mtl log --pending` logs it when the server is back")
    assert run.lost == []
    with pytest.raises(UserError, match=r"no answer; .*nothing is lost"):
        log_pending()
    door.open()
    (line,) = log_pending()
    assert line.startswith(f"load_data: run {run.identity.run_id[:8]} (")
    assert line.endswith("end of the run): logged")
    assert same(run, whole, tmp_path)
    assert log_pending() == ["nothing is pending"]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["shut", "lost"])
def test_an_outage_at_each_request_of_a_stage(door, saved, whole, tmp_path, how):
    for number in whole["requests"]:
        door.at(number, how)
        run = stage(saved)
        door.open()
        assert run.pending
        log_pending()
        assert same(run, whole, tmp_path), number


@pytest.mark.slow
@pytest.mark.parametrize("how", ["shut", "lost"])
def test_a_second_outage_at_each_request_of_the_logging(door, saved, whole, tmp_path, how):
    door.at_first("log-batch", "shut")
    run = stage(saved)
    door.open()
    cut = 0
    while run.pending:  # of a stage that ended: so until there is a log without an outage
        door.at(1 + cut, how)  # 0 asks whether it is there
        try:
            log_pending()
            break
        except UserError:
            cut += 1
        door.open()
    assert cut > 10
    door.open()
    assert same(run, whole, tmp_path)


@pytest.mark.slow
def test_logging_that_is_cut_off_goes_on_where_it_was(door, saved, whole, tmp_path):
    door.at_first("log-batch", "shut")
    run = stage(saved)
    for what in ("log-inputs", "runs/outputs", "PUT .*/models/m-"):
        door.open()
        door.at_first(what, "lost")
        with pytest.raises(UserError, match="nothing is lost"):
            log_pending()
    door.open()
    first = len(door.seen)
    log_pending()
    assert not any("log-inputs" in request for request in door.seen[first:])
    assert same(run, whole, tmp_path)


def test_a_server_that_is_back_before_the_end_gets_all_of_it(door, saved, whole, tmp_path, capsys):
    door.at_first("log-inputs", "lost")
    with tracking.stage_run("load_data", params.read(ROOT / "params.yaml")) as run:
        run.log_dataset(DATASET)
        first = len(door.seen)
        run.log_metrics({"a": 1.0})
        assert len(door.seen) == first  # nothing more is sent to a server that was away
        door.open()
    assert run.lost == run.pending == []
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == "MLflow: logged after all: data set, tags, metrics, end of the run"
    there = stored(run, tmp_path / "downloads")
    assert there["status"] == "FINISHED"
    assert there["metrics"] == {"a": [(0, 1.0)]}
    assert there["inputs"] == whole["inputs"]
    assert log_pending() == ["nothing is pending"]


def test_a_server_that_hangs_is_waited_for_once_and_once_at_the_end(door, saved, whole, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr(server_module, "SECONDS", 1)
    door.at_first("log-inputs", "hang")
    run = stage(saved)
    hung = next(index for index in reversed(range(len(door.seen))) if "log-inputs" in door.seen[index])
    assert [request.split("?")[0] for request in door.seen[hung:]] == ["POST /api/2.0/mlflow/runs/log-inputs", "GET /"]
    with pytest.raises(UserError, match="no answer"):
        log_pending()
    door.open()
    log_pending()
    assert same(run, whole, tmp_path)


def test_only_one_logs_at_a_time(door, saved, whole, tmp_path):
    door.at_first("log-inputs", "shut")
    run = stage(saved)
    door.open()
    arrived, go_on = threading.Event(), threading.Event()

    def wait(request: str) -> None:
        if "log-inputs" in request:
            arrived.set()
            go_on.wait()

    door.rule = wait
    first = threading.Thread(target=log_pending)
    first.start()
    arrived.wait()
    with pytest.raises(UserError, match="another `mtl log --pending` is at work"):
        log_pending()
    go_on.set()
    first.join()
    assert same(run, whole, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["log-inputs", "PUT .*/models/m-", END])
def test_logging_that_is_killed_is_done_again(door, saved, whole, tmp_path, what):
    door.at_first("log-inputs", "shut")
    run = stage(saved)
    started, running = threading.Event(), []

    def kill(request: str) -> str | None:
        started.wait()
        if not re.search(what, request):
            return None
        running[0].kill()
        return "lost"  # the server has it

    door.open()
    door.rule = kill
    command = [sys.executable, "-c", "from mtl.cli import main; main()", "log", "--pending"]
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT / "src")}) as process:
        running.append(process)
        started.set()
    assert process.returncode == -signal.SIGKILL
    door.open()
    log_pending()
    assert same(run, whole, tmp_path)


@pytest.mark.slow
def test_a_stage_that_is_killed_while_the_server_is_away(door, tmp_path):
    door.at_first("log-batch", "shut")
    command = [sys.executable, "-c", STAGE_OF_A_PROCESS, str(ROOT / "params.yaml")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, **pipes) as process:
        assert process.stdout.readline() == "logged\n"
        door.open()
        (line,) = log_pending()
        assert line.endswith("(tags, parameters, metrics): left to its stage, which is still running")
        process.kill()
    (line,) = log_pending()
    assert line.endswith("(tags, parameters, metrics): logged")
    (run,) = mlflow.search_runs(search_all_experiments=True, order_by=["start_time DESC"], output_format="list")[:1]
    assert run.info.status == "KILLED"
    assert run.data.metrics == {"a": 1.0}


def test_what_the_server_refuses_costs_that_alone(door, saved, whole, tmp_path, capsys):
    """An older server knows no logged models: their 404 must not silence the metrics, and is no outage."""
    door.at_first("logged-models", "404")
    run = stage(saved)
    assert (run.lost, run.pending) == (["model"], [])
    assert capsys.readouterr().err.splitlines()[-1] == "MLflow: not logged: model"
    door.open()
    there = stored(run, tmp_path / "downloads")
    assert there | {"models": whole["models"], "requests": whole["requests"]} == whole
    assert log_pending() == ["nothing is pending"]


@pytest.mark.parametrize("what", ["log-inputs", "logged-models/search"])
def test_a_proxy_whose_server_is_away(door, saved, whole, tmp_path, capsys, what):
    """It answers with 404: no refusal by MLflow, whatever it is that is asked, and no run that is gone."""
    door.at_first(what, "proxy")
    run = stage(saved)
    assert run.lost == []
    assert "not logged: " in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(UserError, match=r"it does not know .*/runs/get: mend .*, or start what .*; nothing is lost"):
        log_pending()
    door.open()
    log_pending()
    assert same(run, whole, tmp_path)


def test_a_database_that_takes_nothing_for_a_while(door, saved, whole, tmp_path, capsys):
    """MLflow says BAD_REQUEST to each call that writes into one; files and questions go through."""
    writes = re.compile("log-batch|log-inputs|runs/outputs|runs/update|logged-models$")
    door.rule = lambda request: "400" if writes.search(request) else None
    run = stage(saved)
    assert run.lost == []
    assert run.pending[-1] == "end of the run"
    said = capsys.readouterr().err.splitlines()
    assert said[-2] == "MLflow: logged after all: counts.json, gallery/one"
    assert said[-1].startswith("MLflow: not logged: tags, parameters, data set, metrics, model, end of the run; ")
    with pytest.raises(UserError, match=r"refuses tags, .*: BAD_REQUEST: .*; it stays written down") as told:
        log_pending()
    assert "remove" not in str(told.value)
    door.open()
    log_pending()
    assert same(run, whole, tmp_path)


def test_what_is_refused_afterwards_stays_and_is_named(door, saved, whole, tmp_path):
    door.at_first("log-batch", "shut")
    run = stage(saved)
    door.at_first("logged-models", "404")
    door.state = None
    with pytest.raises(UserError, match=r"refuses model, .*\.pending/.*; remove the folder to give that up"):
        log_pending()
    assert [entry.missing for entry in pending.all_pending()] == [("model",)]
    door.open()
    log_pending()
    assert same(run, whole, tmp_path)


def test_a_run_that_is_gone_is_said_and_holds_up_no_other(door, saved, whole, tmp_path):
    door.at_first("log-inputs", "shut")
    gone = stage(saved)
    door.open()
    door.at_first("log-inputs", "shut")
    run = stage(saved)
    door.open()
    mlflow.MlflowClient().delete_run(gone.identity.run_id)
    with pytest.raises(
        UserError, match=rf"has no run {gone.identity.run_id} .*remove (.*\.pending/\S*) to give up"
    ) as told:
        log_pending()
    (left,) = pending.all_pending()
    assert left.identity.run_id == gone.identity.run_id
    assert str(left.journal.folder) in str(told.value)
    shutil.rmtree(left.journal.folder)
    assert same(run, whole, tmp_path)


def test_what_is_pending_is_listed_and_belongs_to_its_server(door, saved, tmp_path, monkeypatch):
    assert CliRunner().invoke(log.command).output == "nothing is pending\n"
    assert CliRunner().invoke(log.command, "--pending").output == "nothing is pending\n"
    assert pending.advice() == ""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", door.uri.replace("//", "//user:secret@"))
    door.at_first("PUT .*/models/m-", "shut")
    run = stage(saved)
    door.open()
    listed = CliRunner().invoke(log.command).output
    assert f"load_data   {run.identity.run_id[:8]}  {door.uri}  model, tags, end of the run\n" in listed
    assert pending.advice() == "1 run is not logged as a whole: `mtl log --pending` first"
    assert not any("secret" in path.read_text() for path in (tmp_path / ".pending").rglob("*.json"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    with pytest.raises(UserError, match=f"MLFLOW_TRACKING_URI={door.uri} mtl log --pending"):
        log_pending()
    (call,) = (tmp_path / ".pending").glob("*/000001/call.json")
    call.write_text("{")
    with pytest.raises(UserError, match=r"000001/call\.json cannot be read: .*; remove .* to give up"):
        pending.all_pending()


def test_a_disk_that_takes_nothing_costs_no_output(door, saved, tmp_path, capsys):
    (tmp_path / ".pending").write_text("in the way")
    door.at_first("PUT .*/models/m-", "shut")
    run = stage(saved)
    assert (run.lost, run.pending) == (["model", "tags", "end of the run"], [])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("MLflow: not logged: model, tags, end of the run: no answer; not written down: ")


def test_a_server_that_goes_away_costs_a_study_no_trial(door, tmp_path):
    with tracking.study_run("model1", "an id", {"seed": 0}) as (study, parent):
        pass
    with tracking.study_run("model1", "an id", {"seed": 0}) as (_, again):
        assert again == parent
    with tracking.study_run("model1", "another id", {"seed": 0}) as (_, other):
        assert other != parent
    first, known = tracking.trial_run(parent, "trial 0", {"trial": "0"})
    assert mlflow.get_run(known).data.tags["mlflow.parentRunId"] == parent
    door.at_first("runs/create", "lost")
    run, unknown = tracking.trial_run(parent, "trial 1", {"trial": "1"})
    run.log_epoch({"epoch": 1, "loss": 1.0})
    run.end("FINISHED")
    study.end_other(known, "it was killed")
    assert unknown is None
    assert run.pending == ["metrics", "end of the run"]
    assert set(study.pending) == {"end of a killed run"}
    study.end("FINISHED")
    door.open()
    log_pending()
    trials = mlflow.search_runs(
        search_all_experiments=True, filter_string=f"tags.`mlflow.parentRunId` = '{parent}'", output_format="list"
    )
    assert {(trial.data.tags["trial"], trial.info.status) for trial in trials} == {("0", "KILLED"), ("1", "FINISHED")}
    assert len(trials) == 2
    (late,) = [trial for trial in trials if trial.data.tags["trial"] == "1"]
    assert late.data.metrics == {"train_loss": 1.0}
    assert mlflow.get_run(known).data.tags["reason"] == "it was killed"
    assert first.lost == run.lost == study.lost == []


def test_mtl_repro_passes_on_what_a_stage_says_of_it(tmp_path):
    words = "MLflow: not logged: model; `mtl log --pending` logs it when the server is back"
    (tmp_path / "log").write_text(f"epoch 1\n{words}\nUpdating lock file\n")
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    shown = io.StringIO()
    assert succeeded("train@model1", Job(process, tmp_path / "log", 0.0, 0), Console(file=shown, width=200))
    assert words in shown.getvalue()
    assert "epoch" not in shown.getvalue()
