"""A small data set for the tests of the recipes: the colour of the picture and a word of the text name the class."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("blue", "green", "red")
_SPLITS = {"train": 48, "validation": 12, "test": 12}
_WORDS = {"red": ("crimson", "scarlet"), "green": ("lime", "olive"), "blue": ("navy", "azure")}


def write_table(folder: Path, *, several: bool = False, name: str = "my.csv") -> Path:
    """``image``, ``text``, ``label``, ``split``: 72 samples; every ninth lacks its picture, every tenth its text."""
    random = np.random.default_rng(0)
    (folder / "img").mkdir(parents=True, exist_ok=True)
    rows = []
    for split, count in _SPLITS.items():
        for number in range(count):
            label = CLASSES[number % 3]
            pixels = random.integers(0, 80, (20, 24, 3)).astype(np.uint8)
            pixels[..., ("red", "green", "blue").index(label)] += 120
            path = f"img/{split}{number}.png"
            Image.fromarray(pixels).save(folder / path)
            labels = f"{label}|{CLASSES[number % 2]}" if several else label
            text = f"{_WORDS[label][number % 2]} thing number {number} of {split}"
            rows.append(("" if number % 9 == 8 else path, "" if number % 10 == 9 else text, labels, split))
    with (folder / name).open("w", newline="") as file:
        csv.writer(file).writerows([("image", "text", "label", "split"), *rows])
    return folder / name
