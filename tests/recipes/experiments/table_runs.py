"""Small tables for the tests of experiments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from mi2p_inject.recipes.experiments.runner import run_experiments
from mi2p_inject.recipes.experiments.sets.paper_tables import TABLES

TABLE = TABLES[6]
ONLY = ("clip-image", "me-clip-image")
SMALL = {
    "epochs": 1, "max_steps": 2, "batch_size": 8, "image_size": 32, "learning_rate": 3e-3, "new_learning_rate": 3e-3,
}  # fmt: skip


def run(table: Path, out: Path, seeds: tuple[int, ...] = (0, 1), *, given: Any = None, **more: Any) -> dict[str, Any]:
    settings = {"data": str(table), **SMALL, "source_cache": str(table.parent / "cache"), **(given or {})}
    config = TABLE.config(settings, preset="practical")
    options = {"experiments": TABLE, "encoders": "tiny", "seeds": seeds, "only": ONLY, **more}
    return run_experiments(options.pop("experiments"), config, out, Console(quiet=True), **options)


def numbers_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return found
