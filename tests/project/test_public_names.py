"""What a user may use: `dir(mi2p_inject)` shows it, and importing it needs torch alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mi2p_inject

ROOT = Path(__file__).parents[2]


def test_dir_shows_what_a_user_may_use() -> None:
    assert dir(mi2p_inject) == sorted(mi2p_inject.__all__)
    assert all(hasattr(mi2p_inject, name) for name in mi2p_inject.__all__)


def test_import_needs_torch_alone() -> None:
    code = "import torch, sys; before = set(sys.modules); import mi2p_inject; print(*sorted(set(sys.modules) - before))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    heavy = {name.partition(".")[0] for name in done.stdout.split()}
    assert not heavy & {
        "timm", "transformers", "open_clip", "torchvision", "safetensors", "huggingface_hub", "sklearn", "scipy",
        "numpy", "pandas", "PIL", "typer", "rich", "matplotlib", "datasets", "accelerate",
    }  # fmt: skip
    assert "torch.utils.flop_counter" not in done.stdout.split()  # takes most of a second, and only costs need it
