"""Caches of several files."""

from __future__ import annotations

import pytest

import mi2p_inject.sources.fill_cache as source_fill


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_fill, "SAMPLES_PER_FILE", 3)
