"""`mi2p predict` in this process, and what its answers are compared with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from training_runs import RATES
from typer.testing import CliRunner, Result

from mi2p_inject.recipes.cli.app import app

SMALL = {"vision": "tiny:resnet", "text": "tiny:xlnet", "image_size": 32, "batch_size": 8, "max_steps": 2, **RATES}


def mi2p(*arguments: str | Path, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(one) for one in arguments], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == code, result.output
    return result


def train(table: Path, out: Path, **more: Any) -> Path:
    mi2p("train", "--data", table, "--out", out, *(f"--set={name}={value}" for name, value in (SMALL | more).items()))
    return out


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def picture(path: Path, colour: int, seed: int = 0) -> str:
    pixels = np.random.default_rng(seed).integers(0, 80, (20, 24, 3)).astype(np.uint8)
    pixels[..., colour] += 120
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return str(path)


def alone(run: Path, image: Path | str | None = None, text: str | None = None) -> dict[str, Any]:
    """The answer to one sample, given by itself."""
    given = [("--image", image), ("--text", text)]
    return json.loads(mi2p("predict", run, *(x for name, one in given if one for x in (name, one))).stdout)


def same(answer: dict[str, Any], expected: dict[str, Any]) -> None:
    assert answer["label"] == expected["label"]
    assert answer["probabilities"] == pytest.approx(expected["probabilities"], abs=2e-5)


#: of the records of the fixture `holes`
PROBLEMS = [
    None, "no input: no image, no text", "no text", "image: missing file",
    "no input: image: missing file, no text", "image: damaged", None,
]  # fmt: skip
