"""`mtl train`: what its flags change, what it refuses before it trains, and what it leaves where it was stopped."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import filelock
import pytest
import yaml
from click.testing import CliRunner, Result
from conftest import ROOT, small, write_images
from images import tree, write_tar
from ruamel.yaml import YAML

from mtl import lineage
from mtl.commands.train import command
from mtl.config import editing, params
from mtl.config.recipes import Adam
from mtl.errors import UserError
from mtl.stages.job import folders, running, values

SETTINGS = params.read(ROOT / "params.yaml")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder that is no repository: `p.yaml` and the folder `images`."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "TF_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    write_images(tmp_path / "images", train=3, test=1)
    ruamel = YAML()
    content = ruamel.load(ROOT / "params.yaml")
    small(content)
    ruamel.dump(content, tmp_path / "p.yaml")
    return tmp_path


def train(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def refused(*arguments: str) -> str:
    """What `mtl train` says where it ends with an error that is one line."""
    error = train(*arguments).exception
    assert isinstance(error, UserError), error
    assert "\n" not in str(error)
    return str(error)


def changed(*words: str, task: str = "model1") -> params.Params:
    return values.change(SETTINGS, task, values.parse(words), Path("p.yaml"))[0]


@pytest.mark.parametrize(
    "words",
    [
        ("--recipes.compact.optimizer.learning_rate=0.1",),
        ("--optimizer.learning_rate=0.1",),
        ("--optimizer.learning_rate", "1e-1"),
    ],
)
def test_a_value_is_named_in_full_or_as_one_of_the_recipe(words):
    assert changed(*words).recipes["compact"].optimizer.learning_rate == 0.1
    assert changed().recipes == SETTINGS.recipes


def test_sections_lists_and_whole_numbers_written_as_fractions_are_taken():
    got = changed("--optimizer={name: adam, learning_rate: 0.01}", "--options.widths=[8, 8]", "--batch_size=256.0")
    assert got.recipes["compact"].optimizer == Adam(name="adam", learning_rate=0.01)
    assert got.recipes["compact"].options["widths"] == [8, 8]
    assert got.recipes["compact"].batch_size == 256
    # A name of the recipe means the one that the task has in the end; defaults that the file leaves out have names too.
    got = changed("--label_smoothing=0.2", "--tasks.model1.recipe=article_binary")
    assert got.recipes["article_binary"].label_smoothing == 0.2
    assert got.recipes["compact"] == SETTINGS.recipes["compact"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--learning_rate=0.1",), "p.yaml has no recipes.compact.learning_rate; known in recipes.compact: network"),
        (("--optimizer.rate=1",), "known in recipes.compact.optimizer: name, learning_rate, momentum, weight_decay"),
        (("--recipes.huge.epochs=1",), "p.yaml has no recipes.huge.epochs; known in recipes: compact, brief, article_"),
        (("--epochs.of.all=1",), "p.yaml has no recipes.compact.epochs.of.all; known in recipes.compact: network"),
        (("--epochs=many",), "--epochs=many: recipes.compact.epochs: must be a whole number"),
        (("--epochs=1.5",), "--epochs=1.5: recipes.compact.epochs: must be a whole number"),
        (("--optimizer=[1",), "--optimizer=[1: not valid YAML: "),
        (("--optimizer.name=adam",), "recipes.compact.optimizer.momentum: unknown key"),
        (("--epochs",), "--epochs has no value; values of the params file are changed by --NAME=VALUE"),
        (("--epochs", "--batch_size=1"), "--epochs has no value"),
        (("--epochs=1", "--epochs", "2"), "--epochs is given twice"),
        (("epochs=1",), "'epochs=1' is not understood"),
        (("-e", "1"), "'-e' is not understood"),
    ],
)
def test_a_flag_that_means_nothing_is_one_line(words, said):
    with pytest.raises(UserError) as error:
        changed(*words)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_what_cannot_be_trained_is_refused_before_anything_is_written(here):
    usual = ("--params", "p.yaml", "--data", "images", "--output", "out")
    assert refused("model9", *usual) == "p.yaml: there is no task 'model9'; known: model1, model2"
    assert refused("model1", *usual[2:], "--params", "q.yaml").startswith("q.yaml: no such file")
    (here / "broken.yaml").write_text("tasks: [")
    assert refused("model1", *usual[2:], "--params", "broken.yaml").startswith("broken.yaml: not valid YAML")
    said = refused("model1", "--params", "p.yaml", "--output", "out", "--data", "nowhere")
    assert said == "--data nowhere: no such file or folder"
    assert "data.source is 'generated'" in refused("model1", *usual, "--data.source=generated")
    assert "p.yaml has no recipes.compact.lr" in refused("model1", *usual, "--lr=1")
    assert "calibrate" in refused("model1", *usual, "--data.validation=0")
    said = refused("model1", *usual, "--report=r", "--calibrate=none", "--data.validation=0")
    assert said.startswith("--report: no images are held out for validation")
    assert "TF_CONFIG is not set" in refused("model1", *usual, "--hardware.strategy=multi_worker")
    assert "'extra' is not understood" in refused("model1", *usual, "extra")
    assert not (here / "out").exists()
    assert "give TASK first" in train("--lr=1", "model1", *usual).output


def test_a_stage_names_the_option_that_it_refuses(here, capfd):
    train("model1", "--params", "p.yaml", "--data", "images", "--output", "out", "--data.validation=60000")
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "error" in line]
    assert line.startswith("error: --data.validation: 60000 ")


def test_errors_about_params_name_the_file_or_the_option_of_the_command():
    for message, options, place in (
        ("params.yaml: data.size: 300", ["seed"], "my/p.yaml: data.size: 300"),
        ("params.yaml: data.size: 300", ["data.size"], "--data.size: 300"),
        ("data/raw: no params.yaml: data.size", ["data.size"], "data/raw: no params.yaml: data.size"),
    ):
        with pytest.raises(UserError) as error, running.named("my/p.yaml", options):
            raise UserError(message)
        assert str(error.value) == place


def test_a_folder_with_results_is_left_as_it_is(here):
    (here / "out" / "models").mkdir(parents=True)
    said = refused("model1", "--params", "p.yaml", "--data", "images", "--output", "out")
    assert said.endswith("out holds the results of a run (models) already; give another --output")
    assert [path.name for path in (here / "out").rglob("*")] == ["models"]


def test_a_training_that_was_killed_is_not_lost_to_another(here):
    one, two = {"task": "model1"}, {"task": "model2"}
    with pytest.raises(KeyboardInterrupt), folders.working(here / "out", one) as work:
        (work / "data").mkdir()
        raise KeyboardInterrupt
    with folders.working(here / "out", one) as work:  # no epoch was done yet; the same goes on
        assert (work / "data").exists()
        state = work / ".checkpoints" / "model1" / "state.json"
        state.parent.mkdir(parents=True)
        state.write_text("{}")
        with pytest.raises(UserError, match="another training works in"), folders.working(here / "out", one):
            pass
        shutil.copytree(work, here / "killed" / ".work")
    assert list((here / "out").iterdir()) == []  # what ended leaves its results alone
    with pytest.raises(UserError, match="holds another training that did not end"):
        folders.working(here / "killed", two).__enter__()
    with folders.working(here / "killed", one):
        assert (here / "killed" / ".work" / ".checkpoints" / "model1" / "state.json").exists()


def test_a_training_that_was_killed_among_its_results_goes_on(here):
    job = {"task": "model1"}
    with pytest.raises(KeyboardInterrupt), folders.working(here / "out", job):
        (here / "out" / "params.yaml").touch()
        raise KeyboardInterrupt
    with pytest.raises(UserError, match="holds the results of a run"):
        folders.working(here / "out", {"task": "model2"}).__enter__()
    with folders.working(here / "out", job) as work:
        assert work.is_dir()


def test_another_job_begins_anew_where_no_epoch_was_done(here):
    with pytest.raises(ZeroDivisionError), folders.working(here / "out", {"data": "a"}) as work:
        (work / "images").mkdir()
        raise ZeroDivisionError
    with folders.working(here / "out", {"data": "b"}) as work:
        assert not (work / "images").exists()
        with pytest.raises(filelock.Timeout):
            filelock.FileLock(work / ".lock", timeout=0).acquire()


def test_images_behind_a_uri_are_copied_once(here):
    archive = write_tar(here / "pets.tar", tree())
    for source in (archive, here / "images"):
        address = f"local://{source}"  # fsspec's own name for the disk: read as any other file system
        copy = folders.fetched(address, here / "copies")
        assert copy.name == source.name
        assert [p.name for p in sorted(copy.rglob("*"))] == [p.name for p in sorted(source.rglob("*"))]
        stamp = copy.stat().st_mtime_ns
        assert folders.fetched(address, here / "copies").stat().st_mtime_ns == stamp
    assert (here / "copies").joinpath("images").is_dir()


@pytest.mark.parametrize("uri", ["nothing://bucket/images", "local:///nowhere/images", "gs:/x"])
def test_a_uri_that_cannot_be_read_is_one_line(here, uri):
    said = refused("model1", "--params", "p.yaml", "--output", "out", "--data", uri)
    assert said.startswith(f"--data {uri}: ")
    assert not (here / "out" / "models").exists()


@pytest.mark.parametrize("option", ["--data", "--data.path"])
def test_a_password_in_a_uri_is_refused_and_written_nowhere(here, option):
    said = refused("model1", "--params", "p.yaml", "--output", "out", option, "https://me:secret@host/pets.tar")
    assert "'https://***@host/pets.tar' has a password or token in it" in said
    assert "FSSPEC_HTTPS=" in said
    assert "secret" not in said
    assert not (here / "out").exists()


def test_a_token_in_the_environment_opens_a_uri(here, monkeypatch):
    """As the refusal of one in the URI says, and fsspec reads it: `FSSPEC_HTTP={"client_kwargs": …}`."""
    import fsspec

    class Guarded(SimpleHTTPRequestHandler):
        def send_head(self):
            if self.headers["Authorization"] == "Bearer secret":
                return super().send_head()
            return self.send_error(401)

        def log_message(self, *what):
            pass

    write_tar(here / "pets.tar", tree())
    with ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}/pets.tar"
        with pytest.raises(UserError, match="cannot be read"):
            folders.fetched(uri, here / "refused")
        given = {"FSSPEC_HTTP": '{"client_kwargs": {"headers": {"Authorization": "Bearer secret"}}}'}
        monkeypatch.setattr(fsspec.config, "conf", {})
        fsspec.config.set_conf_env(fsspec.config.conf, given)
        assert folders.fetched(uri, here / "copies").read_bytes() == (here / "pets.tar").read_bytes()
        server.shutdown()


def test_where_the_images_are_is_kept_whatever_folder_is_worked_in(here):
    assert folders.located("images") == str(here / "images")
    assert folders.located(f"file://{here}/images") == str(here / "images")
    assert folders.located("s3://bucket/images") == "s3://bucket/images"
    with pytest.raises(UserError, match="no such file"):
        folders.located(f"file://{here}/nowhere")


def test_the_params_file_keeps_its_comments_and_one_task(here):
    content = YAML().load(here / "p.yaml")
    content["tasks"]["model2"]["answer"] = "combined"  # alone, it has no other task to be combined with
    YAML().dump(content, here / "p.yaml")
    folders.write_params(here / "p.yaml", {"recipes.compact.epochs": 3, "data.path": "/x"}, "model2", here / "q.yaml")
    settings = params.read(here / "q.yaml")
    assert (list(settings.tasks), settings.data.path, settings.recipe("model2").epochs) == (["model2"], "/x", 3)
    assert "# of the split, the weights" in (here / "q.yaml").read_text()


def test_runs_of_a_folder_in_a_repository_stay_in_the_folder(here, monkeypatch):
    """`mtl train --output out` in a clone: its store is not that of the clone."""
    (here / ".dvc").mkdir()
    (here / "out").mkdir()
    with folders.environment({"DVC_ROOT": str(here / "out")}):
        assert lineage.root() == here / "out"
        assert lineage.hashes("load_data", "outs") == {}
    assert "DVC_ROOT" not in os.environ
    (here / "study" / ".dvc").mkdir(parents=True)
    monkeypatch.chdir(here / "study")
    assert lineage.root() == here


def test_a_stage_that_fails_ends_the_command_with_its_line(here, capfd):
    (here / "images" / "test" / "cat" / "000.png").write_bytes(b"no image")
    done = train("model1", "--params", "p.yaml", "--data", "images", "--output", "out")
    assert done.exit_code == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: {here / 'images'}: test/cat/000.png: not a whole image")
    assert sorted(p.name for p in (here / "out").iterdir() if p.name != "mlartifacts") == [
        ".mlflow.lock",
        ".work",
        "mlflow.db",
    ]


@pytest.mark.slow
def test_a_training_ends_with_its_metrics(here):
    done = train("model2", "--params", "p.yaml", "--data", "images", "--output", "out")
    assert done.exit_code == 0, done.exception
    metrics = json.loads((here / "out" / "metrics" / "model2.json").read_text())
    printed = dict(line.split("=", 1) for line in done.output.splitlines() if "=" in line)
    assert metrics.keys() <= printed.keys()


def test_the_report_is_what_the_searching_service_reads(monkeypatch):
    """Keys and types as the package cloudml-hypertune writes them."""
    monkeypatch.setenv("CLOUD_ML_TRIAL_ID", "7")
    text = running.reported({"val_loss": 0.5, "val_acc": 0.75, "test_acc": 0.7}, 3)
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row.keys() - {"timestamp"} for row in rows] == [
        {"trial", "global_step", key} for key in ("val_acc", "val_loss")
    ]
    assert (rows[0]["trial"], rows[0]["global_step"], rows[0]["val_acc"]) == ("7", "3", "0.75")
    assert all(isinstance(row["timestamp"], float) for row in rows)


EXAMPLES = [
    yaml.safe_load(text)
    for text in re.findall(r"^```yaml\n(.*?)^```", (ROOT / "docs/cluster.md").read_text(), re.M | re.S)
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_jobs_in_the_documentation_give_flags_that_there_are(example):
    searched = [parameter["parameterId"] for parameter in example.get("studySpec", {}).get("parameters", ())]
    pools = example.get("trialJobSpec", example)["workerPoolSpecs"]
    assert pools[0]["replicaCount"] == 1  # the chief
    for pool in pools:
        name, *arguments = pool["containerSpec"]["args"]
        given = command.make_context(name, arguments).params
        assert given["source"] and given["data"] and given["output"]
        changed(*given["changes"], task=given["task"])
        tree = SETTINGS.model_dump(mode="json")
        assert all(editing.holds(tree["recipes"]["compact"], parameter) for parameter in searched)
        assert bool(searched) == bool(given["report"])
