"""A checkpoint to do things to."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import expanded


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    expanded().save_pretrained(tmp_path)
    return tmp_path
