"""The one line at the end of a command: advice that fits the place."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from mtl import errors
from mtl.commands import runs
from mtl.errors import UserError


def line(message: str) -> str:
    """What a command that fails with `message` leaves behind."""

    def fail() -> None:
        raise UserError(message)

    with pytest.raises(SystemExit) as ended:
        errors.run(fail)
    return str(ended.value)


@pytest.mark.parametrize("advice", ["`dvc repro` does it", "run `dvc repro -f`", "`dvc checkout models`"])
def test_advice_to_run_dvc_says_where_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, advice: str) -> None:
    monkeypatch.delenv("DVC_STAGE", raising=False)
    (tmp_path / "project" / "sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    assert f"there is no dvc.yaml in {tmp_path / 'project'}" in line(advice)
    (tmp_path / "project" / "dvc.yaml").touch()
    assert line(advice) == f"error: {advice}"
    monkeypatch.chdir("sub")
    said = line(advice)
    assert f"no dvc.yaml in {tmp_path / 'project' / 'sub'}" in said and f"do it in {tmp_path / 'project'})" in said
    assert line("something else") == "error: something else"


def test_a_command_in_the_wrong_folder_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DVC_STAGE", "DVC_ROOT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        errors.run(lambda: CliRunner().invoke(runs.command, [], catch_exceptions=False))
    assert f"{tmp_path} is no project" in str(ended.value)
