"""The folder of what could not be logged: what a killed process or a full disk leaves half in it goes away."""

from __future__ import annotations

import pytest
from filelock import FileLock

from mtl.errors import UserError
from mtl.tracking.outbox import pending
from mtl.tracking.outbox.calls import Call
from mtl.tracking.outbox.identity import Identity
from mtl.tracking.outbox.journal import Journal, remove_residue, root


def identity(**tags: str) -> Identity:
    return Identity("sqlite:///x", "load_data", None, None, tags, 1)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


def folders() -> set[str]:
    return {path.name for path in root().iterdir() if path.is_dir()}


def test_what_was_left_half_is_removed_and_what_is_held_or_whole_stays():
    whole, held = Journal.begin(identity()), root() / "20260101-000000-held"
    whole.release()
    for name in ("20260101-000000-empty", "20260101-000000-locked", ".20260101-000000-removed", held.name):
        (root() / name).mkdir()
    (root() / "20260101-000000-locked/lock").touch()
    (root() / ".20260101-000000-removed/run.json").write_text("{}")
    with FileLock(held / "lock"):  # another process makes it just now
        new = Journal.begin(identity())
        assert folders() == {whole.folder.name, held.name, new.folder.name}
    new.release()
    remove_residue()
    assert folders() == {whole.folder.name, new.folder.name}
    assert len(pending.all_pending()) == 2


def test_a_full_disk_leaves_no_folder(tmp_path, full_disk):
    with pytest.raises(UserError, match=r"run\.json"):
        Journal.begin(identity(long="x" * 5000))
    assert folders() == set()
    journal = Journal.begin(identity())
    (tmp_path / "files").mkdir()
    with pytest.raises(OSError):
        journal.add(Call("batch", "tags", {"tags": {"long": "x" * 5000}}), tmp_path / "files")
    assert [path.name for path in journal.folder.iterdir() if path.is_dir()] == []
    journal.release()
