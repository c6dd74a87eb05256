"""huggingface_hub asks a small Hub in this process, with a cache of its own; there is no other network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from small_hub import SmallHub, at_hub, small_hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallHub]:
    with small_hub() as found:
        at_hub(monkeypatch, found.url, tmp_path / "cache")
        yield found
