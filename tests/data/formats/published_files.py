"""Writes small copies of the benchmarks, in exactly the published formats, with the hazards of the real files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data_files import draw, write

from mi2p_inject.recipes.data.formats.mmimdb import GENRES

DAMAGE = ["event_name", "tweet_id", "image_id", "tweet_text", "image", "label"]
AGREED = [*DAMAGE, "label_text", "label_image", "label_text_image"]
RESCUE, OTHER, NOT = "rescue_volunteering_or_donation_effort", "other_relevant_information", "not_humanitarian"
INFRASTRUCTURE, AFFECTED = "infrastructure_and_utility_damage", "affected_individuals"
LABELS = (RESCUE, OTHER, INFRASTRUCTURE, AFFECTED, "injured_or_dead_people", "missing_or_found_people", NOT)


def tweets(root: Path, name: str, rows: list[dict[str, str]], end: str = "\n", columns: list[str] = AGREED) -> None:
    """A table of CrisisMMD: tab-separated, never quoted."""
    folder = "crisismmd_datasplit_all" if "damage" in name else "crisismmd_datasplit_agreed_label"
    lines = ["\t".join(columns), *("\t".join(row.get(column, "x") for column in columns) for row in rows)]
    write(root / folder / name, end.join(lines) + end)


def crisis(root: Path, end: str = "\n", **changes: Any) -> Path:
    """Some samples of each label in each split, two images a tweet."""
    for number, split in enumerate(("train", "dev", "test")):
        rows = []
        for i, label in enumerate([*LABELS, "vehicle_damage"] * 2):
            one = f"91779104415818547{number}{i // 2}_{i % 2}"
            image = f"data_image/california_wildfires/10_10_2017/{one}.jpg"
            draw(root / image, 100 * number + i)
            row = {"tweet_id": one[:-2], "image_id": one, "tweet_text": f"tweet {number} {i // 2}", "image": image}
            rows.append({**row, "label": label, "label_text": label, **changes})
        tweets(root, f"task_humanitarian_text_img_agreed_lab_{split}.tsv", rows, end)
    return root


def food(root: Path, titles: bool = False, dishes: int = 3) -> Path:
    """Some dishes with pictures, and their pages or titles."""
    for split, count in (("train", 20), ("test", 4)):
        lines = []
        for dish in range(dishes):
            for i in range(count):
                name = f"dish_{dish}_{i + (100 if split == 'test' else 0)}"
                draw(root / "images" / split / f"dish_{dish}" / f"{name}.jpg", dish * 1000 + i + len(split))
                lines.append(f'{name}.jpg,"{name}, a ""recipe"" | Site",dish_{dish}\r\n')
                if not titles:
                    write(root / "texts_txt" / f"dish_{dish}" / f"{name}.txt", f"\n# {name}\n\nMix * and | eat.\n")
        if titles:
            write(root / "texts" / f"{split}_titles.csv", "".join(lines))
    return root


def imdb(root: Path, **changes: Any) -> Path:
    """A film of each genre in each split."""
    splits: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    for n, genre in enumerate(GENRES):
        for split, names in splits.items():
            one = f"{len(split)}{n:06}"
            names.append(one)
            film = {
                "plot": ["Short.", f"A longer plot: {genre} {split}."],
                "genres": [genre, "News", "Drama"],
                **changes,
            }
            write(root / "dataset" / f"{one}.json", json.dumps(film))
            draw(root / "dataset" / f"{one}.jpeg", n * 7 + len(split))
    write(root / "split.json", json.dumps(splits))
    return root
