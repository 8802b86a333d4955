"""Files are written whole or not at all, the same bytes every time, and read without running what is in them."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mtl import files
from mtl.data import paths, store
from mtl.errors import UserError
from mtl.networks import saving
from mtl.tasks.spec import TaskSpec
from mtl.tasks.targets import Targets
from mtl.training import leftovers


def test_a_full_disk_is_one_line_and_leaves_what_was_there(tmp_path, full_disk):
    path = tmp_path / "x.npy"
    files.write_array(path, np.arange(10))
    with pytest.raises(UserError, match=rf"cannot write {path}: .+; make room or give access there") as caught:
        files.write_array(path, np.arange(10_000))
    assert "\n" not in str(caught.value)
    assert files.read_array(path).tolist() == list(range(10))
    assert [file.name for file in tmp_path.iterdir()] == ["x.npy"]


def test_an_error_while_writing_leaves_what_was_there(tmp_path):
    path = tmp_path / "x.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"a": float("nan")})
    with pytest.raises(RuntimeError), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert files.read_json(path) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


@pytest.fixture
def gone() -> int:
    """The id of a process that is no more."""
    return int(subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True).stdout)


def test_what_a_killed_process_left_of_a_file_is_removed(tmp_path, monkeypatch, gone):
    monkeypatch.chdir(tmp_path)
    paths.MODELS.mkdir()
    running, other = (paths.MODELS / f".model1.keras.{pid}.tmp" for pid in (os.getppid(), gone))
    another_file, no_process = paths.MODELS / f".gone.keras.{gone}.tmp", paths.MODELS / ".model1.keras.x.tmp"
    for left in (running, other, another_file, no_process):
        left.write_text("half")
    files.write_bytes(paths.model_path("model1"), b"whole")
    assert set(paths.MODELS.iterdir()) == {running, another_file, no_process, paths.model_path("model1")}
    leftovers.clear()
    assert set(paths.MODELS.iterdir()) == {running, no_process, paths.model_path("model1")}


@given(hnp.arrays(st.sampled_from([np.uint8, np.int64, np.float32]), hnp.array_shapes()))
def test_arrays_come_back_as_they_were(tmp_path_factory, array):
    path = tmp_path_factory.mktemp("a") / "x.npy"
    files.write_array(path, array)
    back = files.read_array(path)
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_an_array_of_objects_is_not_unpickled(tmp_path):
    np.save(tmp_path / "x.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"x.npy: not a NumPy array"):
        files.read_array(tmp_path / "x.npy")


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"no array"])
def test_a_broken_array_is_one_line(tmp_path, content):
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(UserError, match=r"x.npy: not a NumPy array .+`dvc checkout` brings it back"):
        files.read_array(tmp_path / "x.npy")


@pytest.mark.parametrize("read", [files.read_array, files.read_json, saving.read])
def test_a_missing_file_says_what_makes_it(tmp_path, read):
    with pytest.raises(UserError, match="gone is missing: run `dvc repro`"):
        read(tmp_path / "gone")


def test_json_and_csv_are_the_same_bytes_whatever_the_order(tmp_path):
    files.write_json(tmp_path / "a.json", {"b": 1, "a": [1.5, None]})
    files.write_json(tmp_path / "b.json", {"a": [1.5, None], "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    files.write_csv(tmp_path / "c.csv", [{"epoch": 1, "loss": 0.1}, {"epoch": 2, "loss": 0.25}])
    assert (tmp_path / "c.csv").read_bytes() == b"epoch,loss\n1,0.1\n2,0.25\n"


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (["src/train.py"], "usage: python src/train.py <task>"),
        (["src/train.py", "model9"], "error: params.yaml: there is no task 'model9'; known: model1, model2"),
        (["src/derive_labels.py"], "error: data/raw/columns/dataset.json is missing: run `dvc repro`"),
    ],
)
def test_a_stage_run_by_hand_says_what_is_missing(tmp_path, command, line):
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    script = [sys.executable, str(ROOT / command[0]), *command[1:]]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_"))}
    done = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    (said,) = done.stderr.splitlines()
    assert said.startswith(line)


def test_nothing_of_another_source_survives_in_data_raw(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = store.Dataset("t", "folder", {}, "png", 1, 0, 1, (2, 2, 3), {"class": "text"})
    table = pa.table({"split": ["train", "test"], "class": ["a", "b"]})
    (paths.IMAGES / "old").mkdir(parents=True)
    (paths.RAW / "x_train.npy").write_text("of an earlier version")
    (paths.IMAGES / paths.SHARDS).write_text("{}")

    def written() -> list[str]:
        return sorted(path.relative_to(paths.RAW).as_posix() for path in paths.RAW.rglob("*") if path.is_file())

    columns = ["columns/columns.parquet", "columns/dataset.json"]
    store.write_raw(dataset, table, {"test": np.zeros((1, 2, 2, 3), np.uint8)})
    assert written() == [*columns, "images/x_test.npy"]
    assert store.read_dataset() == dataset
    store.write_raw(dataset, table, {}, {paths.SHARDS: {}})
    assert written() == [*columns, "images/shards.json"]


def test_columns_are_the_same_bytes_in_every_process(tmp_path):
    program = (
        "import pyarrow as pa, sys; from pathlib import Path; from mtl import files;"
        "files.write_parquet(Path(sys.argv[1]), pa.table({'split': ['train', None] * 500, 'n': [1.5, None] * 500}))"
    )
    for name in ("a", "b"):
        subprocess.run([sys.executable, "-c", program, str(tmp_path / name)], check=True)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no table"])
def test_a_broken_table_is_one_line(tmp_path, content):
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(UserError) as caught:
        files.read_parquet(tmp_path / "x.parquet")
    assert "x.parquet" in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture
def labelled(tmp_path, monkeypatch) -> TaskSpec:
    """Four images with the labels of a task, of which one is missing, in the working directory."""
    monkeypatch.chdir(tmp_path)
    task = TaskSpec(name="t", columns=("c",), names=("a", "b"), groups={"x": "a", "y": "b"}, frequencies=(0.5, 0.5))
    files.write_array(paths.IMAGES / "x_test.npy", np.arange(4 * 12, dtype=np.uint8).reshape(4, 2, 2, 3))
    store.write_targets(task, {"test": Targets(np.uint8([0, 1, 0, 1]), np.array([True, False, True, True]))})
    return task


def test_a_task_is_read_as_it_was_written(labelled):
    assert store.read_task("t") == labelled
    assert store.labelled_tasks() == ["t"]


def test_examples_are_those_whose_label_is_known(labelled):
    examples = store.read_examples("test", "t")
    assert examples.labels.tolist() == [0, 0, 1]
    assert examples.known.all()
    assert examples.images[:, 0, 0, 0].tolist() == [0, 24, 36]
    store.write_targets(labelled, {"test": Targets(np.uint8([0, 1]), np.ones(2, bool))})
    with pytest.raises(UserError, match="dvc repro"):
        store.read_examples("test", "t")
