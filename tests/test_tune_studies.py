"""Studies in a storage that processes share: resumed, never repeated, never one trial too many. Nothing is trained."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import optuna
import psutil
import pytest
from conftest import ROOT
from optuna.trial import TrialState
from test_tune_space import declare

from mtl import files
from mtl.config import editing, params
from mtl.data import paths
from mtl.errors import UserError
from mtl.search import display, opening, report, space, studies, workers
from mtl.search.drawing import pruner, sampler, suggest
from mtl.search.storage import load, open_storage

RATE = "recipes.compact.optimizer.learning_rate"

# A process of a study whose trials cost nothing; it kills itself in trial number DIES.
PROCESS = """
import os, signal, sys
from mtl.config import params
from mtl.search import space, storage, studies
from mtl.search.drawing import sampler, suggest

url, name, dies = sys.argv[1:]
searched = space.read(params.read(), ["model1"])
study = storage.load(storage.open_storage(url), name)

def objective(trial):
    trial.study.sampler = sampler(searched.tune, 0, trial.number)
    values = suggest(trial, searched.parameters)
    if trial.number == int(dies):
        os.kill(os.getpid(), signal.SIGKILL)
    return values["recipes.compact.optimizer.learning_rate"]

studies.recover(study)
studies.work_on(study, searched.tune, objective)
"""


def start(url: str, name: str, dies: int = -1) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, url, name, str(dies)], env=os.environ | {"PYTHONPATH": str(ROOT / "src")}
    )


def optimize(found: opening.OpenedStudy, trials: int) -> None:
    """Do `trials` trials in this process: the value is the learning rate's distance from 0.9."""

    def objective(trial: optuna.Trial) -> float:
        trial.study.sampler = sampler(found.space.tune, 0, trial.number)
        values = suggest(trial, found.space.parameters)
        for epoch in range(1, 7):
            trial.report(1 - abs(values[RATE] - 0.9) - 0.1 / epoch, epoch)
        return 1 - abs(values[RATE] - 0.9)

    found.study.optimize(objective, n_trials=trials)


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A root with params.yaml and files in the place of the images."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    arrays = [paths.IMAGES / "x_train.npy", paths.IMAGES / "x_validation.npy"]
    arrays += [paths.LABELS / task / "y_train.npy" for task in ("model1", "model2")]
    for path in (paths.DATASET, *arrays):
        files.write_bytes(path, path.name.encode())
    declare(early_stopping="none", max_trials=12)
    return tmp_path


@pytest.mark.parametrize("where", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
@pytest.mark.parametrize("algorithm", ["random", "grid"])
def test_processes_share_a_study_and_a_killed_one_costs_nothing(project, where, algorithm, request):
    url = request.getfixturevalue("postgresql") if where == "postgresql" else "sqlite:///tune.db"
    rate = {
        "name": "optimizer.learning_rate",
        "type": "discrete",
        "values": [round(0.05 + i / 100, 2) for i in range(12)],
    }
    # The grid has 12 points, two less than the trials that are asked for.
    if algorithm == "grid":
        declare(algorithm=algorithm, max_trials=14, parameters=[rate])
    found = opening.open_study(params.read(), ["model1"], url, f"{algorithm}", None, None)
    assert start(url, algorithm, dies=5).wait() == -signal.SIGKILL
    (killed,) = found.study.get_trials(states=(TrialState.RUNNING,))
    before = {trial.number for trial in found.study.get_trials(states=studies.FINISHED)}
    others = [start(url, algorithm) for _ in range(3)]
    assert [process.wait() for process in others] == [0, 0, 0]

    finished = found.study.get_trials(states=studies.FINISHED)
    assert len(finished) == 12
    assert before <= {trial.number for trial in finished}, "a finished trial is lost"
    drawn = [tuple(trial.params.values()) for trial in finished]
    assert len(set(drawn)) == 12, "a trial was done twice"
    # Between its end and its new beginning in the queue the others may have done all trials that were asked for.
    queued = [trial.user_attrs.get("queued") for trial in found.study.get_trials()]
    assert killed.params in queued, "the parameters of the killed trial are lost"
    assert not found.study.get_trials(states=(TrialState.RUNNING,))
    assert studies.failures(found.study) == []
    if algorithm == "grid":
        assert sorted(value for (value,) in drawn) == rate["values"]


def test_a_process_that_crashes_costs_its_trial_and_is_named(project):
    found = opening.open_study(params.read(), ["model1"], "sqlite:///tune.db", "model1", None, None)
    process = start("sqlite:///tune.db", "model1", dies=1)
    said = []
    code = process.wait()
    workers.bury(found.study, process.pid, code, Path("log"), lambda trial, why: said.append((trial.number, why)))
    assert said == [(1, "its process ended (SIGKILL; out of memory?)")]
    assert [(trial.number, why) for trial, why in studies.failures(found.study)] == said
    assert not found.study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING))
    Path("log").write_text("starting\nerror: no such network\n")
    with pytest.raises(UserError, match=r"a process of the study ended \(exit status 1\): error: no such network; all"):
        workers.bury(found.study, os.getpid(), 1, Path("log"), print)


def test_too_many_failures_end_a_study(project):
    declare(max_failed_trials=2)
    found = opening.open_study(params.read(), ["model1"], "sqlite:///tune.db", "model1", None, None)

    def broken(trial: optuna.Trial) -> float:
        trial.set_user_attr("reason", "loss became nan")
        raise UserError("loss became nan")

    studies.work_on(found.study, found.space.tune, broken)
    assert [reason for _, reason in studies.failures(found.study)] == ["loss became nan"] * 3


def test_a_process_that_was_taken_for_dead_goes_on_with_another_trial(project):
    declare(max_trials=3)
    found = opening.open_study(params.read(), ["model1"], "sqlite:///tune.db", "model1", None, None)

    def objective(trial: optuna.Trial) -> float:
        values = suggest(trial, found.space.parameters)
        if trial.number == 1:
            (running,) = found.study.get_trials(states=(TrialState.RUNNING,))
            assert studies.end(found.study, running, "no more sign of it", again=True)
        trial.report(values[RATE], 1)
        return values[RATE]

    studies.work_on(found.study, found.space.tune, objective)
    ends = [trial.state for trial in found.study.get_trials()]
    assert ends == [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    again = [trial.params for trial in found.study.get_trials()]
    assert again[1] == again[2]
    assert studies.failures(found.study) == []


def test_a_study_goes_on_by_itself_and_refuses_another_space(project):
    url = "sqlite:///tune.db"
    first = opening.open_study(params.read(), ["model1"], url, "model1", None, None)
    optimize(first, 2)
    again = opening.open_study(params.read(), ["model1"], url, "model1", None, None)
    assert [trial.value for trial in again.study.get_trials()] == [trial.value for trial in first.study.get_trials()]
    # Budgets may change while it runs.
    declare(max_trials=40, parallel_trials=1)
    opening.open_study(params.read(), ["model1"], url, "model1", None, None)
    editing.set_params({"tune.parameters.0.max": 0.5, "recipes.compact.keep": "best"})
    with pytest.raises(UserError) as refused:
        opening.open_study(params.read(), ["model1"], url, "model1", None, None)
    assert f"tune.{RATE}.max: 0.96 -> 0.5" in str(refused.value)
    assert "recipes.compact.keep: last -> best" in str(refused.value)
    assert "--continue model1" in str(refused.value)
    # It is taken at its word: the new study has the new space.
    new = opening.open_study(params.read(), ["model1"], url, "model1", None, "model1")
    assert new.study.study_name == "model1-2"
    assert new.space.parameters[RATE].max == 0.5
    assert opening.open_study(params.read(), ["model1"], url, "model1", None, None).study.study_name == "model1-2"


def test_a_study_goes_on_with_ranges_that_were_learned(project):
    url = "sqlite:///tune.db"
    first = opening.open_study(params.read(), ["model1"], url, "model1", None, None)
    optimize(first, 12)
    comments = [line.partition("#")[2] for line in Path("params.yaml").read_text().splitlines() if "#" in line]
    new = opening.open_study(params.read(), ["model1"], url, "model1", None, "model1")
    rate = new.space.parameters[RATE]
    assert 0.06 < rate.min < 0.9 <= rate.max
    assert params.read().tune.parameters[0] == rate
    assert [line.partition("#")[2] for line in Path("params.yaml").read_text().splitlines() if "#" in line] == comments
    best = display.best(first.study)
    assert best.params in [trial.user_attrs["queued"] for trial in new.study.get_trials()]


def test_the_command_that_continues_a_study_goes_on_by_itself(project):
    url = "sqlite:///tune.db"
    first = opening.open_study(params.read(), ["model1"], url, "model1", None, None)
    optimize(first, 12)
    for _ in range(2):  # it was stopped in between
        new = opening.open_study(params.read(), ["model1"], url, "model1", None, "model1")
        assert new.study.study_name == "model1-2"
    optimize(new, 12)
    assert opening.open_study(params.read(), ["model1"], url, "model1", None, "model1").study.study_name == "model1-3"


def test_what_an_old_study_was_good_at_is_learned_whatever_the_new_one_is_judged_by(project):
    url = "sqlite:///tune.db"
    optimize(opening.open_study(params.read(), ["model1"], url, "model1", None, None), 12)
    editing.set_params({"tune.metric": "val_loss", "tune.goal": "minimize"})
    parameters = [parameter.model_dump(mode="json") for parameter in params.read().tune.parameters]
    declare(parameters=[parameter for parameter in parameters if parameter["name"] != "label_smoothing"])
    new = opening.open_study(params.read(), ["model1"], url, "model1", None, "model1")
    rate = new.space.parameters[RATE]
    assert rate.min < 0.9 <= rate.max, "the worst trials were taken for the best"


def test_a_study_of_choices_alone_can_be_continued_with_other_epochs(project):
    url = "sqlite:///tune.db"
    rates = {"name": "optimizer.learning_rate", "type": "discrete", "values": [0.1, 0.2, 0.9]}
    declare(parameters=[rates])
    optimize(opening.open_study(params.read(), ["model1"], url, "model1", None, None), 3)
    with pytest.raises(UserError, match="study 'model1' changes no range"):
        opening.open_study(params.read(), ["model1"], url, "model1", None, "model1")
    declare(epochs=3)
    new = opening.open_study(params.read(), ["model1"], url, "model1", None, "model1")
    assert new.study.study_name == "model1-2"


def test_a_searched_item_of_a_list_may_be_applied_while_the_study_goes_on(project):
    width = {"name": "options.widths.0", "type": "integer", "min": 8, "max": 64}
    declare(parameters=[width])
    for value in (64, 32):
        editing.set_param("recipes.compact.options.widths.0", value)
        opening.open_study(params.read(), ["model1"], "sqlite:///tune.db", "model1", None, None)
    editing.set_param("recipes.compact.options.widths.1", 96)
    with pytest.raises(UserError, match=r"recipes\.compact\.options\.widths"):
        opening.open_study(params.read(), ["model1"], "sqlite:///tune.db", "model1", None, None)


def gone() -> list:
    """A process of this machine that is over."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        said = [studies.machine(), process.pid, psutil.Process(process.pid).create_time()]
        assert not studies.is_gone(said)
        process.communicate(b"\n")
    return said


def test_a_process_is_known_by_its_machine_number_and_start():
    assert studies.is_gone(gone())
    mine = studies.process()
    assert not studies.is_gone(mine)
    assert studies.is_gone([mine[0], mine[1], mine[2] - 3600]), "an earlier process of the same number"
    assert not studies.is_gone(["another machine", *gone()[1:]])


def test_a_study_whose_maker_was_killed_is_made_again(project):
    storage = open_storage("sqlite:///tune.db")
    half = optuna.create_study(study_name="model1", storage=storage, direction="maximize")
    half.set_user_attr("maker", gone())
    found = opening.open_study(params.read(), ["model1"], "sqlite:///tune.db", "model1", None, None)
    assert found.study.user_attrs["definition"] == found.space.definition()
    assert [trial.user_attrs["baseline"] for trial in found.study.get_trials()] == [True]


def test_what_a_killed_process_was_to_do_again_is_not_lost(project):
    found = opening.open_study(params.read(), ["model1"], "sqlite:///tune.db", "model1", None, None)
    (baseline,) = found.study.get_trials()
    trial = found.study.ask()
    found.study.set_user_attr(f"{studies.ENDED}{trial.number}", {"reason": "its process was gone", "again": True})
    found.study.tell(trial.number, state=TrialState.FAIL)
    studies.recover(found.study)
    assert len(found.study.get_trials()) == 1, "whoever ended it may be about to queue it"
    study = changed("UPDATE trials SET datetime_complete = '2026-01-01 00:00:00'")
    for _ in range(2):
        studies.recover(study)
        _, again = study.get_trials()
        assert (again.state, again.user_attrs["baseline"]) == (TrialState.WAITING, True)
        assert again.user_attrs["queued"] == baseline.user_attrs["queued"]


def test_a_trial_whose_machine_gives_no_more_sign_is_done_again_and_named(project):
    found = opening.open_study(params.read(), ["model1"], "sqlite:///tune.db", "model1", None, None)
    trial = found.study.ask()
    trial.set_user_attr("owner", ["another machine", 1, 1.0])
    storage = open_storage("sqlite:///tune.db")
    study_id = storage.get_study_id_from_name("model1")
    storage.record_heartbeat(storage.get_trial_id_from_study_id_trial_number(study_id, trial.number))
    assert studies.recover(found.study) == []
    study = changed("UPDATE trial_heartbeats SET heartbeat = '2026-01-01 00:00:00'")
    assert [ended.number for ended in studies.recover(study)] == [trial.number]
    assert [trial.state for trial in study.get_trials()] == [TrialState.FAIL, TrialState.WAITING]


def changed(statement: str) -> optuna.Study:
    """The study `model1` after its storage was changed as time alone would."""
    with contextlib.closing(sqlite3.connect("tune.db")) as connection, connection:
        connection.execute(statement)
    return load(open_storage("sqlite:///tune.db"), "model1")


def test_there_is_no_study_to_go_on_from(project):
    opening.open_study(params.read(), ["model1"], "sqlite:///tune.db", "model1", None, None)
    with pytest.raises(UserError, match=r"there is no study 'modle1' in sqlite:///tune.db; known: model1"):
        opening.open_study(params.read(), ["model1"], "sqlite:///tune.db", "model1", None, "modle1")
    with pytest.raises(UserError, match="study 'model1' has no complete trial to learn from"):
        opening.open_study(params.read(), ["model1"], "sqlite:///tune.db", "model1", None, "model1")


@pytest.mark.parametrize(
    "url", ["nosuch://x", "postgresql://me:secret@127.0.0.1:1/x", "sqlite:////no/such/folder/x.db"]
)
def test_a_storage_that_is_away_is_one_line_without_its_password(project, url):
    with pytest.raises(UserError, match="the storage ") as refused:
        opening.open_study(params.read(), ["model1"], url, "model1", None, None)
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_a_trial_draws_depends_on_its_number_and_those_before_it(project):
    declare(algorithm="tpe")
    drawn = []
    for name in ("one", "two"):
        found = opening.open_study(params.read(), ["model1"], "sqlite:///tune.db", "model1", name, None)
        optimize(found, 8)
        if name == "two":  # as in another process
            found = opening.open_study(params.read(), ["model1"], "sqlite:///tune.db", "model1", name, None)
        optimize(found, 5)
        drawn.append([trial.params for trial in found.study.get_trials()])
    assert drawn[0] == drawn[1]


def test_asha_spends_at_most_half_the_epochs(project):
    """As shipped, on learning curves whose order is that of their ends."""
    shipped = space.read(params.read(ROOT / "params.yaml"), ["model1"])
    study = optuna.create_study(direction="maximize", pruner=pruner(shipped.tune))

    def objective(trial: optuna.Trial) -> float:
        trial.study.sampler = sampler(shipped.tune, 0, trial.number)
        end = 1 - abs(suggest(trial, shipped.parameters)[RATE] - 0.4)
        for epoch in range(1, shipped.tune.epochs + 1):
            trial.report(end * (1 - 0.5**epoch), epoch)
            if epoch < shipped.tune.epochs and trial.should_prune():
                raise optuna.TrialPruned
        return end

    study.optimize(objective, n_trials=shipped.tune.max_trials)
    assert report.epochs(study) <= shipped.tune.max_trials * shipped.tune.epochs / 2
    # What all trials did once is what importance is drawn from: the one parameter that their ends depend on.
    assert report.reached(study) == 1
    weights = report.importances(study)
    assert set(weights) == set(shipped.parameters)
    assert max(weights, key=weights.get) == RATE


def test_there_is_no_importance_in_one_trial(project):
    found = opening.open_study(params.read(), ["model1"], "sqlite:///tune.db", "model1", None, None)
    assert report.importances(found.study) == {}
    optimize(found, 1)
    assert report.importances(found.study) == {}
