"""params.yaml: what it accepts, and the one line it gives for what it does not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import ROOT
from ruamel.yaml import YAML

from mtl.commands import mlproject, run
from mtl.config import editing, params
from mtl.errors import UserError
from mtl.stages import load_data


def read_changed(tmp_path: Path, change) -> params.Params:
    tree = YAML(typ="safe").load(ROOT / "params.yaml")
    tree["recipes"]["sgd"] = dict(tree["recipes"]["compact"])
    change(tree)
    path = tmp_path / "params.yaml"
    YAML(typ="safe").dump(tree, path)
    return params.read(path)


def put(path: str, value):
    """A change that puts `value` at a dotted path."""

    def change(tree):
        *parents, last = path.split(".")
        for key in parents:
            tree = tree[key]
        tree[last] = value

    return change


BAD = [
    ("data.path", "", "data.path: must be a path"),
    ("data.path", ".", "data.path: '.' holds the outputs of the stages; use a folder of its own"),
    ("data.path", "data/raw", "data.path: 'data/raw' holds the outputs of the stages"),
    ("data.path", "https://me:secret@host/x", "data.path: 'https://***@host/x' has a password or token in it, which"),
    ("data.path", "https://secret@host/x", "data.path: 'https://***@host/x' has a password or token in it, which"),
    ("data.path", "simplecache::ftp://me:secret@host/x", "'simplecache::ftp://***@host/x' has a password or token"),
    ("hardware.threads", 10**12, "hardware.threads: must be at most 1024"),
    ("recipes.compact.batch_size", 1e30, "recipes.compact.batch_size: must be"),
    ("recipes.sgd.epochs", None, "recipes.sgd.epochs: must be a whole number"),
    ("recipes.compact.optimizer", {"learning_rate": 1.0}, "recipes.compact.optimizer: its name is missing"),
    ("tasks.model2.labels", {"": ["x"], "b": ["y"]}, "tasks.model2.labels"),
    ("tasks.model2.labels", {1: ["x"], "b": ["y"]}, "key 1 is not text; write it in quotes"),
    ("se\ned", 1, "key 'se\\ned' is not text"),
    ("sede", 1, "sede: unknown key"),
    ("data.valdation", 1, "data.valdation: unknown key"),
    ("recipes.compact.optimizer.beta", 1, "recipes.compact.optimizer.beta: unknown key"),
    ("seed", "zero", "seed: must be a whole number, not 'zero'"),
    ("seed", -1, "seed: must be at least 0, not -1"),
    ("seed", True, "seed: must be a whole number, not true"),
    (
        "data.source",
        "cifar100",
        "data.source: must be 'cifar10', 'folder', 'generated', 'table' or 'tfrecord', not 'cifar100'",
    ),
    ("data.size", 2, "data.size: must be at least 4, not 2"),
    ("data.validation", -5, "data.validation: must be a number of examples"),
    ("data.path", None, "data.path: must be text"),
    ("hardware.threads", 0, "hardware.threads: must be at least 1, not 0"),
    (
        "hardware.strategy",
        "tpus",
        "hardware.strategy: must be 'auto', 'one_device', 'mirrored', 'multi_worker'",
    ),
    ("hardware.strategy", "parameter_server", "hardware.strategy: parameter_server: Keras 3 does not support it; use"),
    ("hardware.wait_seconds", 0, "hardware.wait_seconds: must be at least 1, not 0"),
    ("recipes.compact.tensorboard", "yes", "recipes.compact.tensorboard: must be true or false, not 'yes'"),
    ("recipes.compact.tensorboard", {"profile": [3]}, "tensorboard.profile: 1 entries; give at least 2"),
    (
        "recipes.compact.tensorboard",
        {"profile": [9, 3]},
        "tensorboard.profile: [9, 3] ends before it begins; write [first step, last step]",
    ),
    ("tasks", {}, "tasks: 0 entries; give at least 1"),
    ("tasks.model1.recipe", "huge", "tasks.model1.recipe: there is no recipe 'huge'; known: "),
    ("tasks.main_evaluate", {"labels": None, "recipe": "compact"}, "tasks.main_evaluate: this name is used by"),
    ("tasks.model2.labels", {"a": ["x"]}, "tasks.model2.labels: 1 group(s); a task tells between 2 and "),
    ("tasks.model2.labels", {"a": ["x"], "b": []}, "tasks.model2.labels: group 'b' is empty"),
    ("tasks.model2.labels", {"a": ["x"], "b": ["x"]}, "class 'x' is listed twice (in a, b)"),
    ("tasks.model2.labels", {"a": ["x", "x"], "b": ["y"]}, "class 'x' is listed twice (in a)"),
    ("recipes.compact.epochs", 0, "recipes.compact.epochs: must be at least 1, not 0"),
    ("recipes.compact.precision", "float16", "recipes.compact.precision: must be 'auto', 'float32' or 'mixed"),
    ("recipes.compact.optimizer.learning_rate", 0, "recipes.compact.optimizer.learning_rate: must be above"),
    ("recipes.compact.optimizer.learning_rate", float("nan"), "recipes.compact.optimizer.learning_rate: must be"),
    ("recipes.compact.optimizer.name", "adamax", "recipes.compact.optimizer: "),
    ("recipes.compact.label_smoothing", 1.0, "recipes.compact.label_smoothing: must be below 1"),
    ("recipes.compact.optimizer", {"name": "sgd"}, "recipes.compact.optimizer.learning_rate: is missing"),
    ("recipes.compact.optimizer", 3, "recipes.compact.optimizer: must be a mapping, keys with values, not 3"),
    ("recipes.compact.network", "my file.py", "recipes.compact.network: must be a network's name, or module:function"),
    ("tasks.model2.answer", "both", "tasks.model2.answer: must be 'own', 'derived' or 'combined', not 'both'"),
    (
        "tasks",
        {"model1": {"recipe": "compact", "answer": "derived"}},
        "tasks.model1.answer: derived needs another task",
    ),
    (
        "tasks",
        {"a": {"recipe": "compact", "answer": "derived"}, "b": {"kind": "value", "recipe": "compact"}},
        "tasks.a.answer: derived needs another task of the kind classes",
    ),
    (
        "tasks.own",
        {"kind": "mine:Kind", "columns": ["a"], "recipe": "compact", "answer": "derived"},
        "tasks.own.answer: unknown key",
    ),
    ("tasks.Model3", {"labels": None, "recipe": "compact"}, "tasks.Model3: must be a name of small letters"),
    ("tasks", ["model1"], "tasks: must be a mapping, keys with values, not a list of 1"),
    ("tasks.model2.labels.animal", "cat", "tasks.model2.labels.animal: must be a list, such as [a, b], not 'cat'"),
    ("hardware", None, "hardware: must be a mapping, keys with values, not null"),
    ("recipes.compact.schedule", {"name": "cosine"}, "recipes.compact.schedule: unknown name 'cosine'; use one of"),
    ("recipes.compact.batch_size", "9" * 500, "recipes.compact.batch_size: must be a whole number, not '999"),
]
PYDANTIC = ("Input should", "String should", "Field required", "Input tag", "should have")


@pytest.mark.parametrize(("path", "value", "message"), BAD, ids=[f"{path}={value}" for path, value, _ in BAD])
def test_bad_value_is_one_line_that_names_the_key(tmp_path, path, value, message):
    with pytest.raises(UserError) as caught:
        read_changed(tmp_path, put(path, value))
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
    assert not any(words in str(caught.value) for words in PYDANTIC)
    assert str(caught.value).startswith(str(tmp_path / "params.yaml"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "path", ["s3://bucket/a@b", "sftp://me@host/x", "abfs://box@account.dfs.core.windows.net/x", "github://a:b@main/x"]
)
def test_a_uri_without_a_password_is_taken(tmp_path, path):
    assert read_changed(tmp_path, put("data.path", path)).data.path == path


def test_a_uri_is_refused_where_dvc_runs_the_stage(tmp_path, monkeypatch):
    """`mtl train` gives URIs to the same stage; DVC can tell no change of most of them."""
    read_changed(tmp_path, put("data.path", "gs://bucket/records"))
    monkeypatch.chdir(tmp_path)
    said = "params.yaml: data.path: 'gs://bucket/records' is a URI and the DAG takes local paths: copy the images"
    with pytest.raises(UserError, match=said) as caught:
        CliRunner().invoke(run.command, catch_exceptions=False)
    assert "`mtl train <task> --params params.yaml --data gs://bucket/records --output out`" in str(caught.value)
    with pytest.raises(UserError, match=said):
        CliRunner().invoke(mlproject.command, catch_exceptions=False)
    monkeypatch.setenv("DVC_STAGE", "load_data")
    with pytest.raises(UserError, match=said):
        load_data.main()
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_keep_best_needs_validation_images(tmp_path):
    def change(tree):
        tree["data"]["validation"] = 0
        tree["recipes"]["compact"]["keep"] = "best"

    with pytest.raises(UserError, match=r"recipes.compact.keep: 'best' is chosen on the validation images"):
        read_changed(tmp_path, change)


def test_a_combined_answer_needs_validation_images(tmp_path):
    def change(tree):
        tree["data"]["validation"] = 0
        tree["tasks"]["model2"]["answer"] = answer
        for recipe in tree["recipes"].values():
            recipe["calibrate"] = "none"

    answer = "derived"
    assert read_changed(tmp_path, change).answers() == {"model2": "derived"}
    answer = "combined"
    with pytest.raises(UserError, match=r"tasks.model2.answer: combined is weighted on the validation images"):
        read_changed(tmp_path, change)


@pytest.mark.parametrize(
    "text", ["seed: [", "seed: 0\nseed: 1", "\t- x", "- a\n- b", "", "x: &a [*a]", "? [a, b]\n: 1", "[" * 5000]
)
def test_what_is_no_mapping_is_one_line(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        params.read(path)
    assert "\n" not in str(caught.value)


def levels(first: str, level: str) -> str:
    """Ten levels of aliases, each ten times the one before: ten thousand million values in 1 kB."""
    lines = [f"x0: &x0 {first}"]
    for number in range(1, 10):
        lines.append(f"x{number}: &x{number} {level.format(', '.join([f'*x{number - 1}'] * 10))}")
    return "\n".join(lines)


BOMBS = {
    "lists": (levels("[a, a, a, a, a, a, a, a, a, a]", "[{}]"), "aliases"),
    "merged": (levels("{a: 1}", "{{<<: [{}]}}"), "aliases"),
    "digits": ("seed: " + "9" * 5000, "line 1: a number of 5,000 digits"),
    "hexadecimal digits": ("a: 1\nseed: 0x" + "f" * 5000, "line 2: a number of "),
    "no such day": ("seed: 2001-99-99", "month"),
    "half a character": ('data: "\\ud800"', "line 1: "),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_what_would_fill_the_memory_or_is_no_value_is_one_line(tmp_path, kind):
    text, words = BOMBS[kind]
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        params.read(path)
    assert str(caught.value).startswith(str(path))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(path))


def test_aliases_are_taken(tmp_path):
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("schedule: {", "schedule: &own {", 1) + "x: &y 1\n")
    with pytest.raises(UserError, match="x: unknown key"):
        params.read(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text(
        text.replace("widths: [64, 256, 256]", "widths: [&w 64, *w, *w]").replace("label_smoothing: 0.1", "<<: {}")
    )
    assert params.read(tmp_path / "params.yaml").recipes["compact"].options["widths"] == [64, 64, 64]


def test_a_file_name_that_is_not_utf_8_is_one_line(fresh, tmp_path):
    project = fresh.copy(tmp_path / "p")
    folder = os.fsencode(project.root / "data/external/train/cat")
    shutil.copy(folder + b"/000.png", folder + b"/caf\xe9.png")
    for command in (["python", "src/load_data.py"], ["mtl", "repro", "load_data"]):
        failed = project.run(*command, check=False)
        assert failed.returncode == 1
        (line,) = failed.stderr.splitlines()
        assert line.startswith("error: ")
        assert "caf\\xe9.png" in line


def test_missing_file_names_what_would_be_right(tmp_path):
    with pytest.raises(UserError, match="run from the root of the repository"):
        params.read(tmp_path / "params.yaml")


def test_yaml_is_read_as_dvc_reads_it(tmp_path):
    """`yes` is the name of a group and 1e-3 a number: plain PyYAML gives True and text."""
    text = (ROOT / "params.yaml").read_text()
    text = text.replace("learning_rate: 0.001", "learning_rate: 1e-3").replace("animal:", "yes:")
    path = tmp_path / "params.yaml"
    path.write_text(text)
    read = params.read(path)
    assert list(read.tasks["model2"].labels) == ["yes", "vehicle"]
    assert read.recipes["article_multiclass"].optimizer.learning_rate == 0.001


def test_settings_do_not_change():
    with pytest.raises(ValueError, match="frozen"):
        params.read(ROOT / "params.yaml").seed = 1


@pytest.mark.parametrize("lists", ["as shipped", "not indented"])
def test_an_edit_changes_one_line_of_the_file(tmp_path, monkeypatch, lists):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / params.PATH).read_text()
    if lists == "not indented":
        text = text.replace("\n    - {", "\n  - {")
    params.PATH.write_text(text)
    editing.set_param("recipes.compact.precision", "float32")
    before, after = text.splitlines(), params.PATH.read_text().splitlines()
    assert len(before) == len(after)
    (line,) = [new for old, new in zip(before, after, strict=True) if old != new]
    assert (
        line
        == "    precision: float32                 # float32 | mixed_bfloat16 | auto: bfloat16 where the machine has it"
    )
