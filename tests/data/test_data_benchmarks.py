"""Loaders of the benchmarks, on files in exactly the published formats, with the hazards of the real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from data_files import Load, draw, load, note, sizes, write

from mi2p_inject.recipes.data.formats.crisismmd import TASKS
from mi2p_inject.recipes.data.formats.mmimdb import GENRES
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["load"]

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


class TestCrisisMMD:
    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    def test_the_papers_humanitarian_task(self, end: str, tmp_path: Path, load: Load) -> None:
        samples = load(f"crisismmd:{crisis(tmp_path, end)}")
        assert samples.classes == (AFFECTED, INFRASTRUCTURE, OTHER, RESCUE, "vehicle_damage")
        assert sizes(samples) == {
            "train": 14,
            "validation": 14,
            "test": 14,
        }
        assert samples.targets("train").tolist() == [3, 2, 1, 0, 0, 0, 4] * 2
        assert note(samples, "left out") == "left out: 6 rows: labelled not_humanitarian"
        assert "train 14 (published: 2874)" in note(samples, "differ from the published")
        assert samples.splits["train"][0]["id"] == "9177910441581854700_0"
        assert samples.splits["train"][0]["image"].endswith("10_10_2017/9177910441581854700_0.jpg")

    def test_the_common_humanitarian_task(self, tmp_path: Path, load: Load) -> None:
        samples = load(f"crisismmd:{crisis(tmp_path)}", task="humanitarian-common")
        assert samples.classes == (AFFECTED, INFRASTRUCTURE, NOT, OTHER, RESCUE)
        assert len(samples.splits["test"]) == 16

    def test_images_of_one_tweet_are_one_group(self, tmp_path: Path, load: Load) -> None:
        rows = load(f"crisismmd:{crisis(tmp_path)}").splits["train"]
        groups: dict[str, set[str]] = {}
        for row in rows:
            groups.setdefault(row["id"].rpartition("_")[0], set()).add(row["group"])
        assert all(len(found) == 1 for found in groups.values())
        assert len(set(rows["group"])) == len(groups) == 8

    def test_texts_as_tweets_are(self, tmp_path: Path, load: Load) -> None:
        text = "He said \"go 'home &amp; wait\r now â€™til"  # a stray quote, a lone carriage return, mojibake
        samples = load(f"crisismmd:{crisis(tmp_path, tweet_text=text)}")
        assert set(samples.splits["train"]["text"]) == {"He said \"go 'home & wait\r now â€™til"}
        assert "42 texts" in note(samples, "wrong character set")
        repaired = load(f"crisismmd:{tmp_path}", repair_text=True)
        assert repaired.splits["train"][0]["text"].endswith("now \N{RIGHT SINGLE QUOTATION MARK}til")
        assert repaired.fingerprint != samples.fingerprint

    @pytest.mark.parametrize("name", TASKS)
    def test_published_sizes_are_recognised(self, name: str, tmp_path: Path, load: Load) -> None:
        task = TASKS[name]
        labels = {"informative": ["informative", "not_informative"], "damage": ["severe", "mild", "little_or_none"]}
        kinds = labels.get(name, [RESCUE, INFRASTRUCTURE, OTHER, AFFECTED, "vehicle_damage"])
        images = [f"data_image/{i}.jpg" for i in range(30)]
        for i, image in enumerate(images):
            draw(tmp_path / image, i)
        for split, size in zip(("train", "dev", "test"), task.published, strict=True):
            rows = [
                {"image_id": f"{split}{i}", "tweet_id": f"{split}{i}", "tweet_text": f"{split} {i}"}
                for i in range(size)
            ]
            for i, row in enumerate(rows):
                row.update({"image": images[i % 30], task.column: kinds[i % len(kinds)]})
            rows += [{**rows[0], "image_id": f"{split}n", task.column: NOT}] * (task.dropped is not None)
            tweets(tmp_path, task.files.format(split), rows, columns=DAMAGE if name == "damage" else AGREED)
        samples = load(f"crisismmd:{tmp_path}", task=name)
        assert tuple(len(split) for split in samples.splits.values()) == task.published
        assert note(samples, "as published").endswith("/".join(map(str, task.published)))

    def test_the_damage_sizes_of_the_paper_are_explained(self) -> None:
        assert "2461/529/530" in TASKS["damage"].notes[0]

    def test_a_repeated_image_is_kept(self, tmp_path: Path, load: Load) -> None:
        samples = load(f"crisismmd:{crisis(tmp_path, image_id='1_0')}")
        assert samples.splits["train"]["id"][:3] == ["1_0", "1_0#2", "1_0#3"]

    def test_unpacked_one_level_deeper(self, tmp_path: Path, load: Load) -> None:
        root = crisis(tmp_path / "CrisisMMD_v2.0")
        (root / "crisismmd_datasplit_agreed_label").rename(tmp_path / "crisismmd_datasplit_agreed_label")
        assert load(f"crisismmd:{tmp_path}").splits["train"][0]["image"].startswith(str(root))

    def test_what_is_missing_is_named(self, tmp_path: Path, load: Load) -> None:
        with pytest.raises(RecipeError, match="crisismmd needs a folder"):
            load("crisismmd")
        with pytest.raises(RecipeError, match="is no folder"):
            load(f"crisismmd:{tmp_path}/nowhere")
        with pytest.raises(RecipeError, match=r"no task_humanitarian_text_img_agreed_lab_train\.tsv"):
            load(f"crisismmd:{tmp_path}")
        crisis(tmp_path)
        with pytest.raises(RecipeError, match=r"no task 'sentiment'[\s\S]*humanitarian-common"):
            load(f"crisismmd:{tmp_path}", task="sentiment")
        (tmp_path / "data_image").rename(tmp_path / "images")
        with pytest.raises(RecipeError, match="no folder data_image"):
            load(f"crisismmd:{tmp_path}")

    def test_another_table_under_the_name(self, tmp_path: Path, load: Load) -> None:
        crisis(tmp_path)
        tweets(tmp_path, "task_humanitarian_text_img_agreed_lab_dev.tsv", [], columns=["id", "text"])
        with pytest.raises(RecipeError, match=r"lab_dev\.tsv has no column tweet_id, image_id"):
            load(f"crisismmd:{tmp_path}")

    def test_a_torn_line_is_named(self, tmp_path: Path, load: Load) -> None:
        path = crisis(tmp_path) / "crisismmd_datasplit_agreed_label/task_humanitarian_text_img_agreed_lab_test.tsv"
        path.write_text(path.read_text(encoding="utf-8") + "california\t123\t", encoding="utf-8")
        with pytest.raises(RecipeError, match="line 18: 3 fields, expected 9"):
            load(f"crisismmd:{tmp_path}")


def food(root: Path, titles: bool = False, dishes: int = 3) -> Path:
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


class TestFood101:
    def test_pages(self, tmp_path: Path, load: Load) -> None:
        food(tmp_path)
        (tmp_path / "images/train/dish_0/._dish_0_0.jpg").touch()  # what macOS leaves in archives
        (tmp_path / "texts_txt/dish_1/dish_1_3.txt").unlink()
        write(tmp_path / "texts_txt/dish_1/dish_1_4.txt", " \n")
        (tmp_path / "texts_txt/dish_1/dish_1_5.txt").write_bytes(b"cr\xe8me")
        write(tmp_path / "texts_txt/dish_2/dish_2_999.txt", "no picture")
        samples = load(f"food101:{tmp_path}")
        assert sizes(samples) == {
            "train": 54,
            "validation": 6,
            "test": 12,
        }
        rows = {row["id"]: row for split in samples.splits.values() for row in split}
        assert rows["train/dish_0/dish_0_7.jpg"]["text"] == "# dish_0_7\n\nMix * and | eat."
        assert rows["train/dish_1/dish_1_3.jpg"]["text"] is rows["train/dish_1/dish_1_4.jpg"]["text"] is None
        assert rows["train/dish_1/dish_1_5.jpg"]["text"] == "cr\N{REPLACEMENT CHARACTER}me"
        assert "2 samples without text" in note(samples, "without text")
        assert note(samples, "left out") == "left out: 1 rows: a text without an image: its split is unknown"
        assert note(samples, "classes in images") == "3 classes in images/train, published: 101"
        assert "train 54 (published: 58131)" in note(samples, "differ")
        assert sorted(samples.targets("validation").tolist()) == [0, 0, 1, 1, 2, 2]

    def test_titles(self, tmp_path: Path, load: Load) -> None:
        food(tmp_path, titles=True)
        (tmp_path / "images/test/dish_1/dish_1_101.jpg").unlink()
        samples = load(f"food101:{tmp_path}")
        assert sizes(samples) == {
            "train": 54,
            "validation": 6,
            "test": 12,
        }
        rows = {row["id"]: row for row in samples.splits["test"]}
        assert rows["test/dish_0/dish_0_100.jpg"]["text"] == 'dish_0_100, a "recipe" | Site'
        assert rows["test/dish_1/dish_1_101.jpg"]["image"] is None
        assert "train+validation 60 (published: 67972)" in note(samples, "differ")
        assert "1 missing file" in note(samples, "bad images")

    def test_validation_is_seeded(self, tmp_path: Path, load: Load) -> None:
        food(tmp_path)
        first, again, other = (load(f"food101:{tmp_path}", seed=seed) for seed in (0, 0, 1))
        assert first.splits["validation"]["id"][:] == again.splits["validation"]["id"][:]
        assert first.splits["validation"]["id"][:] != other.splits["validation"]["id"][:]
        assert first.splits["test"]["id"][:] == other.splits["test"]["id"][:]
        assert first.fingerprint == again.fingerprint != other.fingerprint

    def test_the_other_food101_is_refused_by_name(self, tmp_path: Path, load: Load) -> None:
        with pytest.raises(RecipeError, match=r"ETHZ Food-101[\s\S]*UPMC Food-101"):
            load("ethz/food101")
        with pytest.raises(RecipeError, match="ETHZ Food-101"):
            load("food101:ethz/food101")
        draw(tmp_path / "archive/images/apple_pie/1005649.jpg")
        write(tmp_path / "archive/meta/train.txt", "apple_pie/1005649\n")
        write(tmp_path / "hub/data/train-00000-of-00008.parquet", "PAR1")
        for layout in ("archive", "hub"):
            with pytest.raises(RecipeError, match="ETHZ Food-101"):
                load(f"food101:{tmp_path / layout}")

    def test_what_is_missing_is_named(self, tmp_path: Path, load: Load) -> None:
        with pytest.raises(RecipeError, match=r"is not UPMC Food-101[\s\S]*an empty folder"):
            load(f"food101:{tmp_path}")
        food(tmp_path)
        (tmp_path / "images/test").rename(tmp_path / "images/tset")
        with pytest.raises(RecipeError, match="images/test does not exist"):
            load(f"food101:{tmp_path}")


def imdb(root: Path, **changes: Any) -> Path:
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


class TestMMIMDB:
    def test_films(self, tmp_path: Path, load: Load) -> None:
        imdb(tmp_path / "mmimdb")
        write(tmp_path / "mmimdb/dataset/3000003.json", json.dumps({"plot": [" "], "genres": ["War"]}))
        write(tmp_path / "mmimdb/dataset/4000004.json", json.dumps({"plot": ["News of the day"], "genres": ["News"]}))
        (tmp_path / "mmimdb/dataset/4000005.json").unlink()
        (tmp_path / "mmimdb/dataset/5000006.jpeg").unlink()
        samples = load(f"mmimdb:{tmp_path}")
        assert samples.multi_label
        assert samples.classes == GENRES
        assert len(GENRES) == 23
        assert sizes(samples) == {
            "train": 23,
            "validation": 22,
            "test": 21,
        }
        first = samples.splits["train"][1]
        assert first["text"] == "A longer plot: Comedy train."
        assert [samples.classes[i] for i in first["label"]] == ["Drama", "Comedy"]
        assert samples.targets("validation")[21].sum() == 2
        left_out = [one for one in samples.notes if one.startswith("left out")]
        assert sorted(left_out) == [
            "left out: 1 rows: empty plot",
            "left out: 1 rows: no JSON file",
            "left out: 1 rows: none of the 23 genres",
        ]
        assert "1 samples without image" in note(samples, "without image")

    def test_ids_that_were_read_as_numbers(self, tmp_path: Path, load: Load) -> None:
        imdb(tmp_path)
        split = json.loads((tmp_path / "split.json").read_text())
        for one in split["train"]:
            for ending in ("json", "jpeg"):
                (tmp_path / f"dataset/{one}.{ending}").rename(tmp_path / f"dataset/00{one[2:]}.{ending}")
        split["train"] = [int(one[2:]) for one in split["train"]]
        write(tmp_path / "split.json", json.dumps(split))
        assert len(load(f"mmimdb:{tmp_path}").splits["train"]) == 23

    def test_one_plot_not_in_a_list(self, tmp_path: Path, load: Load) -> None:
        imdb(tmp_path, plot="The plot")
        assert set(load(f"mmimdb:{tmp_path}").splits["test"]["text"]) == {"The plot"}

    def test_damage_is_named(self, tmp_path: Path, load: Load) -> None:
        with pytest.raises(RecipeError, match=r"split\.json does not exist"):
            load(f"mmimdb:{tmp_path}")
        imdb(tmp_path)
        write(tmp_path / "dataset/5000003.json", '{"plot": ["cut')
        with pytest.raises(RecipeError, match=r"cannot read .*5000003\.json"):
            load(f"mmimdb:{tmp_path}")
        write(tmp_path / "split.json", "[]")
        with pytest.raises(RecipeError, match="no lists train, dev and test"):
            load(f"mmimdb:{tmp_path}")


class TestOpenClipart:
    def test_titles_topics_and_collections(self, tmp_path: Path, load: Load) -> None:
        titles = {"animals": "Ragno &amp; figo {}", "food": "Collection of nothing"}
        for topic, title in titles.items():
            for i in range(12):
                name = f"{topic}/sub/a_nice-{topic}_{'abcdefghijkl'[i]}_01"
                draw(tmp_path / "png" / f"{name}.png", i + len(topic))
                svg = f"<svg><metadata><dc:title\n>{title.format('abcdefghijkl'[i])}</dc:title></metadata></svg>"
                write(tmp_path / "svg" / f"{name}.svg", svg)
        draw(tmp_path / "png/computer/icons/theme/folder.png")
        draw(tmp_path / "png/shapes/star.png")
        (tmp_path / "png/animals/alias.png").symlink_to(tmp_path / "png/animals/sub/a_nice-animals_a_01.png")
        samples = load(f"openclipart:{tmp_path}")
        rows = {row["id"]: row for split in samples.splits.values() for row in split}
        assert len(rows) == 24
        assert rows["animals/sub/a_nice-animals_b_01"]["text"] == "Ragno & figo b"
        assert rows["food/sub/a_nice-food_b_01"]["text"] == "a nice food b"
        assert samples.classes == ("animals", "food")
        assert note(samples, "left out") == "left out: 1 rows: icons of desktop themes"
        assert "public domain" in samples.notes[0]

    def test_not_installed(self, tmp_path: Path, load: Load) -> None:
        with pytest.raises(RecipeError, match="apt-get install openclipart-png openclipart-svg"):
            load(f"openclipart:{tmp_path}")
