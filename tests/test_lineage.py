"""What is asked of git leaves the repository as it is."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from mtl import lineage

NAMES = ("plain.txt", 'ä\nb "c".txt', "old.txt")


def git(*arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


def test_asking_git_writes_nothing_that_a_kill_could_leave_locked(tmp_path, monkeypatch):
    """An index whose files were touched is one that `git status` writes anew, under .git/index.lock."""
    monkeypatch.chdir(tmp_path)
    assert (lineage.git(), lineage.uncommitted()) == ({}, None)
    git("init", "-q")
    assert (lineage.git(), lineage.uncommitted()) == ({}, None)
    for name in NAMES:
        Path(name).write_text("1")
    git("add", "-A")
    git("commit", "-qm", "start")
    for name in NAMES:
        os.utime(name, (0, 0))
    before = Path(".git/index").stat()
    assert lineage.git()["git_dirty"] == "false"
    assert lineage.uncommitted() == []
    after = Path(".git/index").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_changed_files_are_named_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    for name in NAMES:
        Path(name).write_text("1")
    git("add", "-A")
    git("commit", "-qm", "start")
    Path(NAMES[1]).write_text("2")
    git("mv", "old.txt", "new.txt")
    Path("untracked.txt").write_text("3")
    assert lineage.uncommitted() == sorted([NAMES[1], "new.txt", "old.txt"])
    assert lineage.git()["git_dirty"] == "true"
