"""Train on your own table: a CSV with image paths, texts and labels becomes a run folder, and answers.

Small random encoders and drawn pictures, so that this runs offline in half a minute; name your own encoders instead,
such as vision="densenet121" and text="bert-base-uncased".
"""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

from PIL import Image

from mi2p_inject.recipes import fit

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
        run = fit(table, "me-vision", vision="tiny:resnet", text="tiny:bert", epochs=1, batch_size=8, out=out)
        print(run)
        new = [{"image": Path(where) / "0.png", "text": "a red square"}, {"image": None, "text": "a blue square"}]
        print(run.predict(new), run.predict_proba(new).round(2), run.classes)


if __name__ == "__main__":
    main()
