"""CrisisMMD in exactly its published format, with the hazards of the real files."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_files import Load, draw, load, note, sizes, write
from published_files import AFFECTED, AGREED, DAMAGE, INFRASTRUCTURE, NOT, OTHER, RESCUE, crisis, tweets

from mi2p_inject.recipes.data.formats.crisismmd import TASKS
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["load"]


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

    @pytest.mark.parametrize("label", ["", " ", "nan"])
    def test_an_empty_label_is_no_class(self, label: str, tmp_path: Path, load: Load) -> None:
        path = crisis(tmp_path) / "crisismmd_datasplit_agreed_label/task_humanitarian_text_img_agreed_lab_train.tsv"
        write(path, path.read_text(encoding="utf-8").replace(f"\t{RESCUE}\t", f"\t{label}\t", 1))
        with pytest.raises(RecipeError, match="1 of 42 samples have no label"):
            load(f"crisismmd:{tmp_path}")

    def test_labels_in_capitals_are_noted(self, tmp_path: Path, load: Load) -> None:
        path = crisis(tmp_path) / "crisismmd_datasplit_agreed_label/task_humanitarian_text_img_agreed_lab_train.tsv"
        write(path, path.read_text(encoding="utf-8").replace(RESCUE, RESCUE.title(), 2))
        assert note(load(f"crisismmd:{tmp_path}"), "capitals").endswith(
            f"{RESCUE.title()!r}, {RESCUE!r}; are they one?"
        )

    def test_a_torn_line_is_named(self, tmp_path: Path, load: Load) -> None:
        path = crisis(tmp_path) / "crisismmd_datasplit_agreed_label/task_humanitarian_text_img_agreed_lab_test.tsv"
        path.write_text(path.read_text(encoding="utf-8") + "california\t123\t", encoding="utf-8")
        with pytest.raises(RecipeError, match="line 18: 3 fields, expected 9"):
            load(f"crisismmd:{tmp_path}")
