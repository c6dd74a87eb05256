"""Tiny runs that are explained, and a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from recipes_data import write_table
from training_runs import train

from mi2p_inject.recipes.explain.loaded import Loaded, load_expanded
from mi2p_inject.recipes.saving.saved import load_run


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both models expanded with units that attend: XLNet's special tokens stand at the end."""
    out = tmp_path_factory.mktemp("runs") / "mi2p"
    train(table, out, max_steps=2, vision="tiny", unit="mi2p", zero_init="none", image_size=64)
    return out


@pytest.fixture(scope="session")
def loaded(run: Path) -> Loaded:
    return load_expanded(load_run(run))


@pytest.fixture(scope="session")
def film_run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both models expanded with units that have no attention."""
    out = tmp_path_factory.mktemp("runs") / "film"
    train(table, out, max_steps=2, vision="tiny", text="tiny", unit="film", image_size=64)
    return out


@pytest.fixture(scope="session")
def film_loaded(film_run: Path) -> Loaded:
    return load_expanded(load_run(film_run))


@pytest.fixture(scope="session")
def unimodal(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "vision"
    train(table, out, max_steps=1, vision="tiny", model="vision", fusion="score")
    return out


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pictures") / "red.png"
    pixels = np.random.default_rng(0).integers(0, 255, (40, 30, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file)
    return file
