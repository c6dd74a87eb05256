"""A distribution as pip would install it; `installed` puts it on the path, with other metadata if wanted."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mi2p_inject.core.registry import entry_points_of

HERE = Path(__file__).parent
MODULES = ("third_party_kinds", "third_party_recipes")


@contextmanager
def installed(folder: Path, entry_points: str | None = None) -> Iterator[None]:
    """The distribution, installed into `folder` while the context lasts."""
    for path in HERE.glob("third_party_*"):
        (shutil.copytree if path.is_dir() else shutil.copy)(path, folder / path.name)
    if entry_points is not None:
        (folder / "third_party_kinds-1.0.dist-info" / "entry_points.txt").write_text(entry_points)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        for name in MODULES:
            patch.delitem(sys.modules, name, raising=False)
        entry_points_of.cache_clear()
        try:
            yield
        finally:
            for name in MODULES:
                sys.modules.pop(name, None)
            entry_points_of.cache_clear()
