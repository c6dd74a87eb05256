"""How much of a large table each process of a training holds: Parquet files of many rows, two processes, one epoch.

    python -m benchmarks.scale.data_memory --rows 200000

Writes the rows to a temporary folder as Parquet files, and starts torchrun. Each process loads them as `mi2p train`
does, and reads its share of every batch of an epoch, in shuffled order. What is reported is the memory of its own that
a process has (`RssAnon`): pages of memory-mapped files, which the system takes back when it needs them, are not in it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import accelerate
import numpy as np
import torch
import typer

from benchmarks.measure import resident
from mi2p_inject.core.human import human
from mi2p_inject.recipes.config import make_config
from mi2p_inject.recipes.systems.inputs import ImageTextDataset
from mi2p_inject.recipes.training.train import load_samples, quiet

__all__ = ["main", "read_share", "write_rows"]

_CHARACTERS = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz      ", dtype=np.uint8)
_BATCH = 64


def write_rows(folder: Path, rows: int, characters: int, files: int) -> int:
    """``train-00000-of-...parquet`` with texts of random letters; their size in bytes."""
    import pyarrow
    import pyarrow.parquet

    generator = np.random.default_rng(0)
    for number in range(files):
        count = len(range(number, rows, files))
        letters = _CHARACTERS[generator.integers(0, len(_CHARACTERS), (count, characters))]
        texts = [line.tobytes().decode() for line in letters]
        table = pyarrow.table({"text": texts, "label": [f"class {row % 10}" for row in range(count)]})
        pyarrow.parquet.write_table(table, folder / f"train-{number:05}-of-{files:05}.parquet", row_group_size=5_000)
    return rows * characters


def read_share(folder: Path) -> dict[str, Any]:
    """Load the table and read this process's share of an epoch; what it had of memory at each point."""
    quiet()
    accelerator = accelerate.Accelerator(cpu=True)
    found = {"at the start": _own_memory()}
    with accelerator.main_process_first():
        samples = load_samples(make_config({"data": str(folder), "model": "text", "dedupe": "none"}))
    found["loaded"] = _own_memory()
    data = ImageTextDataset(samples.splits["train"], None)
    loader = torch.utils.data.DataLoader(
        data, _BATCH, shuffle=True, collate_fn=lambda items: torch.tensor([len(item["text"]) for item in items])
    )
    rows = characters = most = 0
    for batch in accelerator.prepare(loader):
        rows, characters, most = rows + len(batch), characters + int(batch.sum()), max(most, _own_memory())
    return {**found, "most in an epoch": most, "rows": rows, "characters": characters, "of": len(data)}


def main(
    rows: Annotated[int, typer.Option(help="Rows of the table.", min=100)] = 200_000,
    characters: Annotated[int, typer.Option(help="Characters of a text.", min=10)] = 2_000,
    files: Annotated[int, typer.Option(help="Parquet files.", min=1)] = 8,
    processes: Annotated[int, typer.Option(help="Processes.", min=1)] = 2,
    share: Annotated[str, typer.Option(hidden=True, help="In a process of torchrun: the folder.")] = "",
) -> None:
    """Write, start, print."""
    if share:
        found = read_share(Path(share))
        Path(share, f"rank-{os.environ['RANK']}.json").write_text(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as folder:
        (data := Path(folder, "data")).mkdir()
        size, started = write_rows(data, rows, characters, files), time.perf_counter()
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command = [sys.executable, *launch, "-m", "benchmarks.scale.data_memory", "--share", str(data)]
        subprocess.run(command, check=True, env={**os.environ, "HF_DATASETS_CACHE": str(Path(folder, "cache"))})
        print(f"{rows:,} rows, {human(size, 'B')} of text in {files} files; {time.perf_counter() - started:.0f} s")
        for file in sorted(data.glob("rank-*.json")):
            found = json.loads(file.read_text())
            shown = {name: human(value, "B") for name, value in found.items() if name not in ("rows", "of")}
            print(f"{file.stem}: {found['rows']:,} of {found['of']:,} rows; {shown}")


def _own_memory() -> int:
    return round(1e6 * resident("RssAnon"))


if __name__ == "__main__":
    typer.run(main)
