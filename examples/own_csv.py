"""Train on your own table: a CSV with image paths, texts and labels becomes a run folder, and answers.

Small random encoders and drawn pictures, so that this runs offline in half a minute; name your own encoders instead,
such as vision="densenet121" and text="bert-base-uncased".
"""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

from PIL import Image
from rich.console import Console

from mi2p_inject.recipes.config import make_config
from mi2p_inject.recipes.evaluation.evaluate import predict_one
from mi2p_inject.recipes.saving.saved import load_run
from mi2p_inject.recipes.training.train import train_run

COLORS = {"red": (220, 40, 40), "green": (40, 220, 40), "blue": (40, 40, 220)}


def write_table(folder: Path) -> Path:
    """Thirty coloured squares, each with a sentence and the colour's name as its label."""
    table = folder / "my.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "text", "label"])
        for number in range(30):
            name, color = list(COLORS.items())[number % 3]
            picture = Image.new("RGB", (48, 48), color)
            picture.paste((number * 8, 128, 255 - number * 8), (number, 8, number + 12, 20))  # no two are alike
            picture.save(folder / f"{number}.png")
            writer.writerow([f"{number}.png", f"square {number} looks {name}", name])
    return table


def main() -> None:
    with tempfile.TemporaryDirectory() as where:
        table, out = write_table(Path(where)), Path(where) / "runs" / "first"
        options = {"data": str(table), "vision": "tiny:resnet", "text": "tiny:bert", "model": "me-vision"}
        train_run(make_config({**options, "epochs": 1, "batch_size": 8}), out, Console())
        run = load_run(out)
        print(predict_one(run, Path(where) / "0.png", "a red square"))


if __name__ == "__main__":
    main()
