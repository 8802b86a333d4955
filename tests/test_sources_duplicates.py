"""The same picture in two places: what load_data and `mtl convert` say of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ROOT
from images import encoded, pixels, tree, write_tree

from mtl.commands import convert
from mtl.config import params
from mtl.data import shards
from mtl.sources import duplicates
from mtl.sources.loaded import Loaded, class_column
from mtl.stages import load_data

FILES = tree(train=4, test=2)
TRAIN, TEST, OTHER = "train/cat/0.png", "test/cat/1.png", "train/dog/2.png"


def said_by_load_data(data: dict, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines on stderr of what the stage does with `data`, in the working directory."""
    settings = params.read(ROOT / "params.yaml")
    settings = settings.model_copy(update={"data": params.Data(**({"validation": 0, "path": "images"} | data))})
    capsys.readouterr()
    (load_data.link if settings.data.source == "tfrecord" else load_data.load)(settings)
    return capsys.readouterr().err.splitlines()


def test_load_data_counts_what_is_in_two_splits_or_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tree(tmp_path / "images", FILES)
    assert said_by_load_data({"source": "folder"}, capsys) == []
    again = encoded(pixels(0), compress_level=1)  # the pixels of train/cat/0.png in another file
    assert again != FILES[TRAIN]
    write_tree(tmp_path / "images", {TEST: again, "train/cat/1.png": again})
    (line,) = said_by_load_data({"source": "folder"}, capsys)
    assert "1 in several splits" in line and f"{TRAIN} and {TEST}" in line and "classes" not in line
    write_tree(tmp_path / "images", {OTHER: again})
    (line,) = said_by_load_data({"source": "folder"}, capsys)
    assert "1 in several splits" in line and "1 in several classes" in line and f"{TRAIN} and {OTHER}" in line


def test_what_is_held_out_is_compared_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    cats = {f"train/cat/{number}.png": FILES[TRAIN] for number in range(4)}
    write_tree(tmp_path / "images", FILES | cats)
    (line,) = said_by_load_data({"source": "folder", "validation": 2}, capsys)
    assert "in several splits" in line and "held out" in line


def test_images_without_files_are_named_by_their_number() -> None:
    x = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), np.uint8)
    y = class_column(np.uint8([0, 1, 0, 1, 0, 1]), ("a", "b"))
    x[5], x[2] = x[1], x[3]
    found = duplicates.find_loaded(
        Loaded("some", "raw", {"train": x[:4], "test": x[4:]}, {"train": y[:4], "test": y[4:]})
    )
    assert (found.splits, found.classes) == (1, 1)
    assert found.first == {"splits": ("train image 1", "test image 1"), "classes": ("train image 2", "train image 3")}


def test_pixels_of_another_shape_are_others() -> None:
    assert len({duplicates.digest(np.zeros(shape, np.uint8)) for shape in ((2, 8, 3), (4, 4, 3), (8, 2, 3))}) == 3


def test_convert_counts_them_and_load_data_says_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tensorflow: None
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tree(tmp_path / "images", {**FILES, "train/cat/1.png": b"broken"})
    write_tree(tmp_path / "images", dict.fromkeys((TEST, OTHER), encoded(pixels(0), compress_level=1)))
    arguments = ["images", "shards", "--records-per-shard", "2", "--direct_running_mode=in_memory"]
    done = CliRunner().invoke(convert.command, arguments, catch_exceptions=False)
    line = done.stderr.splitlines()[-1]
    assert "1 in several splits" in line and "1 in several classes" in line
    found = shards.read_manifest("shards").duplicates
    assert found is not None
    assert TEST in found.first["splits"] and {found.first["classes"][0], found.first["classes"][1]} == {TRAIN, OTHER}
    assert said_by_load_data({"source": "tfrecord", "path": "shards"}, capsys) == [line]
    # What is said of the images is not what is trained from.
    assert "duplicates" not in json.loads((tmp_path / "data/raw/images/manifest.json").read_text())
    manifest = tmp_path / "shards/manifest.json"
    manifest.write_text(json.dumps({k: v for k, v in json.loads(manifest.read_text()).items() if k != "duplicates"}))
    (line,) = said_by_load_data({"source": "tfrecord", "path": "shards"}, capsys)
    assert "not checked" in line
