"""CIFAR-10: the official format, what is taken for official, Keras' cache, and downloads that break."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import pickle
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from images import CIFAR10, batches, classes, labels, pixels, serving, tree, write_tar, write_tree

from mtl import sources
from mtl.config.params import Data
from mtl.errors import UserError
from mtl.sources import cifar10, official, pickles, trees
from mtl.sources.loaded import Loaded

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
OFFICIAL = {"train": "all", "test": "all"}
LABELS = np.arange(12) % 10
PICTURES = np.stack([pixels(seed, 32, 32) for seed in range(12)])
BATCHES = batches(PICTURES, LABELS)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of Keras, and no way to a copy or the network by accident."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.delenv("DVC_ROOT", raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    (tmp_path / "external").mkdir()
    (tmp_path / "keras" / "datasets").mkdir(parents=True)
    return tmp_path / "keras" / "datasets"


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small archive, held for the official one."""
    path = write_tar(tmp_path / "external" / "cifar-10-python.tar.gz", BATCHES)
    arrays = {"x_train": PICTURES[:10], "y_train": LABELS[:10], "x_test": PICTURES[10:], "y_test": LABELS[10:]}
    for name, array in arrays.items():
        file = io.BytesIO()
        np.save(file, array if name.startswith("x") else array.astype(np.uint8)[:, None])
        monkeypatch.setitem(official.ARRAYS_MD5, name, hashlib.md5(file.getvalue()).hexdigest())
    monkeypatch.setattr(official, "ARCHIVE_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(official, "ARCHIVE_BYTES", path.stat().st_size)
    return path


def load(path: Path | str, size: int | None = None) -> Loaded:
    return sources.load(Data(source="cifar10", path=str(path), size=size, validation=0), 0)


def refusal(path: Path | str) -> str:
    with pytest.raises(UserError) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- the official format


@quick
@given(
    each=st.integers(1, 3),
    seed=st.integers(0, 2**32),
    protocol=st.sampled_from([None, 3, 4, 5]),
    order=st.permutations(sorted(BATCHES)),
    form=st.sampled_from(["folder", "a.tar", "a.tar.gz"]),
)
def test_batches_are_parsed_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, each: int, seed: int, protocol: int | None, order: list[str], form: str
) -> None:
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(0, 256, (6 * each, 32, 32, 3), np.uint8), rng.integers(0, 10, 6 * each)
    files = batches(images, labels, protocol)
    root, files = tmp_path_factory.mktemp("batches"), {name: files[name] for name in order}
    path = write_tree(root, files) if form == "folder" else write_tar(root / form, files)
    x_train, y_train, x_test, y_test = pickles.parse(trees.list_files(path))
    assert np.array_equal(np.concatenate([x_train, x_test]), images)
    assert np.array_equal(np.concatenate([y_train, y_test])[:, 0], labels)
    assert {array.dtype for array in (x_train, y_train, x_test, y_test)} == {np.dtype(np.uint8)}
    assert len(x_test) == each


@pytest.mark.parametrize("place", ["archive", "its folder", "unpacked", "folder of unpacked", "renamed"])
def test_the_official_copy_is_known_by_its_bytes(archive: Path, tmp_path: Path, place: str) -> None:
    unpacked = write_tree(tmp_path / "unpacked", {**BATCHES, "cifar-10-batches-py/batches.meta": b"never read"})
    (tmp_path / "my.tgz").write_bytes(archive.read_bytes())
    path = {
        "archive": archive,
        "its folder": archive.parent,
        "unpacked": unpacked / "cifar-10-batches-py",
        "folder of unpacked": unpacked,
        "renamed": tmp_path / "my.tgz",
    }[place]
    images = load(path)
    assert (images.name, images.encoding, images.official, classes(images)) == ("CIFAR-10", "raw", OFFICIAL, CIFAR10)
    assert np.array_equal(images.images["train"], PICTURES[:10]) and np.array_equal(
        images.images["test"], PICTURES[10:]
    )
    assert labels(images, "train").tolist() == LABELS[:10].tolist()


def test_resized_it_is_no_longer_official(archive: Path) -> None:
    images = load(archive, size=16)
    assert images.images["train"].shape == (10, 16, 16, 3) and images.images["test"].shape == (2, 16, 16, 3)
    assert (images.name, images.official) == ("CIFAR-10", {})
    assert load(archive, size=32).official


@pytest.mark.parametrize("damage", [lambda content: content[:-100], lambda content: content + b"\0", lambda _: b""])
def test_an_archive_with_the_official_name_and_other_bytes(archive: Path, damage: Callable[[bytes], bytes]) -> None:
    archive.write_bytes(damage(archive.read_bytes()))
    message = refusal(archive.parent)
    assert str(archive) in message and "truncated or not the official archive" in message
    assert f"expected {official.ARCHIVE_SHA256}" in message


def test_other_images_in_the_official_format(archive: Path, tmp_path: Path) -> None:
    other = write_tree(tmp_path / "other", batches(PICTURES[::-1], LABELS))
    message = refusal(other)
    assert "not the official CIFAR-10: md5 of x_train" in message and official.ARRAYS_MD5["x_train"] in message


def test_a_missing_batch(archive: Path, tmp_path: Path) -> None:
    files = {name: content for name, content in BATCHES.items() if not name.endswith("3")}
    assert "data_batch_3 missing" in refusal(write_tree(tmp_path / "part", files))


class Payload:
    def __init__(self, run: Callable, *arguments: object) -> None:
        self.reduced = run, arguments

    def __reduce__(self) -> tuple[Callable, tuple[object, ...]]:
        return self.reduced


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("place", ["whole", "inside", "key"])
def test_a_batch_that_tries_to_run_code_is_refused_and_not_run(tmp_path: Path, protocol: int, place: str) -> None:
    ran = tmp_path / "ran"
    payload = Payload(os.mkdir, str(ran))
    pickle.loads(pickle.dumps(payload))
    assert ran.is_dir()  # the payload works where it is let
    ran.rmdir()
    batch = {"whole": payload, "inside": {"data": payload}, "key": {(payload,): 0}}[place]
    name = "cifar-10-batches-py/test_batch"
    message = refusal(write_tree(tmp_path / "bad", {**BATCHES, name: pickle.dumps(batch, protocol)}))
    assert "test_batch: not a batch of CIFAR-10 (refused to run posix.mkdir)" in message
    assert not ran.exists()


@pytest.mark.parametrize("run", [eval, getattr, np.load, np.save, functools.partial, pickle.loads, io.open])
def test_nothing_but_arrays_is_made(tmp_path: Path, run: Callable) -> None:
    bad = {**BATCHES, "cifar-10-batches-py/data_batch_1": pickle.dumps(Payload(run, "x"))}
    assert "(refused to run " in refusal(write_tree(tmp_path / "bad", bad))


@pytest.mark.parametrize(
    "batch",
    [
        [],
        {b"labels": []},
        {b"data": np.zeros((2, 3072)), b"labels": [0, 0]},
        {b"data": np.zeros((2, 100), np.uint8), b"labels": [0, 0]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 10]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, -1]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0.5, 1]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": "ab"},
    ],
)
def test_what_is_no_batch(tmp_path: Path, batch: object) -> None:
    bad = {**BATCHES, "cifar-10-batches-py/data_batch_2": pickle.dumps(batch, 4)}
    assert "data_batch_2: not a batch of CIFAR-10" in refusal(write_tree(tmp_path / "bad", bad))


@quick
@given(data=st.data())
def test_a_damaged_batch_is_never_official(archive: Path, tmp_path: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(BATCHES)))
    content = bytearray(BATCHES[name])
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = write_tree(tmp_path / "damaged", {**BATCHES, name: bytes(content)})
    try:
        images = load(path)
    except UserError as error:
        assert str(path) in str(error)
    else:  # bytes of the pickle that mean the same
        assert np.array_equal(images.images["train"], PICTURES[:10]) and np.array_equal(
            labels(images, "test"), LABELS[10:]
        )


# --- copies as image files


@pytest.mark.parametrize(("kind", "encoding", "name"), [("jpeg", "jpeg", "JPEG"), ("png", "png", "PNG")])
@pytest.mark.parametrize("form", ["folder", "a.tar.gz"])
def test_a_copy_as_image_files_is_never_called_official(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, kind: str, encoding: str, name: str
) -> None:
    files = dict(reversed(tree(CIFAR10, kind=kind, shape={"height": 32, "width": 32}).items()))
    root = tmp_path / "external"
    path = write_tree(root, files) if form == "folder" else write_tar(root / form, files).parent
    images = load(path)
    assert (images.encoding, images.official, classes(images)) == (encoding, {}, CIFAR10)
    assert labels(images, "test").tolist() == list(range(10))
    assert images.name == f"CIFAR-10, {name} copy, 30 of 60,000 images"
    monkeypatch.setattr(cifar10, "IMAGES", 30)
    assert load(path).name == f"CIFAR-10, {name} copy"


def test_other_classes_are_not_cifar10(tmp_path: Path) -> None:
    message = refusal(write_tree(tmp_path / "external", tree((*CIFAR10[:-1], "lorry"))))
    assert "not CIFAR-10" in message and "(lorry, truck)" in message and "data.source: folder" in message


def test_a_path_that_is_not_there_is_not_passed_over(tmp_path: Path) -> None:
    assert "missing: no such file or folder" in refusal(tmp_path / "missing")


# --- Keras' cache, and where there is nothing


@pytest.mark.parametrize("name", ["cifar-10-batches-py-target_archive", "cifar-10-batches-py.tar.gz"])
def test_the_cache_of_keras_is_used_where_there_is_no_copy(archive: Path, cache: Path, name: str) -> None:
    cached = archive.rename(cache / name)
    (archive.parent / ".gitignore").write_text("*")
    assert cifar10.find_local(str(archive.parent)) == cached
    images = load(archive.parent)
    assert images.official and np.array_equal(images.images["train"], PICTURES[:10])


def test_a_copy_of_ones_own_goes_before_the_cache(archive: Path, cache: Path) -> None:
    (cache / "cifar-10-batches-py-target_archive").write_bytes(archive.read_bytes())
    assert cifar10.find_local(str(archive.parent)) == archive.parent
    assert cifar10.find_local(str(archive)) == archive
    archive.write_bytes(b"broken")
    assert str(archive) in refusal(archive.parent)


def test_what_is_not_there_is_not_found(archive: Path, cache: Path, tmp_path: Path) -> None:
    (cache / "cifar-10-batches-py-target_archive").write_bytes(archive.read_bytes()[:-1])  # a download that broke off
    archive.unlink()
    (archive.parent / ".gitignore").write_text("*")
    assert cifar10.find_local(str(archive.parent)) is None
    assert cifar10.find_local(str(tmp_path / "missing")) is None


@pytest.fixture
def keras_from(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let Keras' own download ask another address, and keep its cache in the test's folder."""
    from keras.src.datasets import cifar10 as dataset

    get_file = dataset.get_file

    def point(origin: str, **other: str) -> None:
        def elsewhere(**given: object) -> str:
            return get_file(**given | {"origin": origin, "cache_dir": str(cache.parent)} | other)

        monkeypatch.setattr(dataset, "get_file", elsewhere)

    return point


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"answer": b"half", "length": 1000}, "retrieval incomplete"),
        ({"answer": b"another file"}, "Incomplete or corrupted file"),
        ({"answer": b"", "status": 404}, "404"),
        ({"answer": b"", "status": 503}, "503"),
    ],
    ids=["truncated", "wrong hash", "not found", "out of order"],
)
def test_a_broken_download_is_never_taken_for_whole(
    tmp_path: Path, cache: Path, keras_from: Callable[..., None], answer: dict, reason: str
) -> None:
    with serving(**answer) as address:
        keras_from(address)
        message = refusal(tmp_path / "external")
    assert reason in message and official.URL in message
    assert "put cifar-10-python.tar.gz into" in message and "data.source: generated" in message
    assert cifar10.find_local(str(tmp_path / "external")) is None


@pytest.mark.slow
def test_a_download_is_checked_kept_and_loaded(
    tmp_path: Path, cache: Path, keras_from: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many images as Keras expects, all of one colour, served and held for the official ones."""
    images, numbers = np.full((60_000, 32, 32, 3), 7, np.uint8), np.arange(60_000) % 10
    content = write_tar(tmp_path / "served.tgz", batches(images, numbers)).read_bytes()
    monkeypatch.setattr(official, "ARCHIVE_SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(official, "ARCHIVE_BYTES", len(content))
    arrays = (images[:50_000], numbers[:50_000], images[50_000:], numbers[50_000:])
    for name, array in zip(("x_train", "y_train", "x_test", "y_test"), arrays, strict=True):
        array = array if array.ndim == 4 else array.astype(np.uint8)[:, None]
        monkeypatch.setitem(official.ARRAYS_MD5, name, official.npy_md5(array))
    with serving(content) as address:
        keras_from(address, file_hash=official.ARCHIVE_SHA256)
        first = load(tmp_path / "external")
    again = load(tmp_path / "external")  # the server is gone
    for loaded in (first, again):
        assert loaded.official and loaded.images["train"].shape == (50_000, 32, 32, 3)
        assert labels(loaded, "test").tolist() == numbers[50_000:].tolist()


def test_a_server_that_says_nothing(tmp_path: Path, keras_from: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(official, "_DOWNLOAD_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        keras_from(f"http://127.0.0.1:{silent.getsockname()[1]}/x")
        assert "timed out" in refusal(tmp_path / "external")
    assert socket.getdefaulttimeout() is None


def test_no_network_at_all(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras' own address, through a proxy that refuses."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{closed.getsockname()[1]}")
    assert "the download from https://www.cs.toronto.edu" in refusal(tmp_path / "external")
    assert not cifar10.can_download(timeout=5)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"answer": b"", "length": official.ARCHIVE_BYTES}, True),
        ({"answer": b"", "length": 5}, False),  # the page of a hotel's network
        ({"answer": b"", "status": 404}, False),
        ({"answer": b"", "hold": True}, False),
    ],
    ids=["there", "another page", "gone", "silent"],
)
def test_whether_a_download_is_possible(monkeypatch: pytest.MonkeyPatch, answer: dict, expected: bool) -> None:
    with serving(**answer) as address:
        monkeypatch.setattr(official, "URL", address)
        assert cifar10.can_download(timeout=0.2 if answer.get("hold") else 5) is expected


def test_a_name_that_is_looked_up_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: ended.wait() and [])
    assert not cifar10.can_download(timeout=0.2)
    ended.set()


@pytest.mark.parametrize("proxy", ["nonsense://", "http://[", "127.0.0.1:99999"])
def test_a_proxy_that_is_none(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("https_proxy", proxy)
    assert not cifar10.can_download(timeout=5)
