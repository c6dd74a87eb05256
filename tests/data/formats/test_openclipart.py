"""Open Clip Art as Debian's packages install it."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_files import Load, draw, load, note, write

from mi2p_inject.recipes.errors import RecipeError

__all__ = ["load"]


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

    def test_keywords_are_labels(self, tmp_path: Path, load: Load) -> None:
        words = [("animal", "Bird", "somebody's name"), ("food",), ("hash", ""), ("animal", "food")]
        for i in range(32):
            draw(tmp_path / "png" / f"animals/thing_{i}.png", i)
            items = "".join(f"<rdf:li>{word}</rdf:li>" for word in words[i % 4])
            title = f"<dc:title>Thing number {i} {'abcdefghijklmnopqrstuvwxyzABCDEF'[i]}</dc:title>"
            write(tmp_path / "svg" / f"animals/thing_{i}.svg", f"<svg>{title}<dc:subject>{items}</dc:subject></svg>")
        samples = load(f"openclipart:{tmp_path}", task="keywords")
        assert samples.multi_label
        assert samples.classes == ("animal", "bird", "food")
        rows = [row for split in samples.splits.values() for row in split]
        assert {tuple(row["label"]) for row in rows} == {(0, 1), (2,), (0, 2)}
        assert note(samples, "left out") == "left out: 8 rows: none of the keywords"

    def test_no_such_task(self, tmp_path: Path, load: Load) -> None:
        with pytest.raises(RecipeError, match=r"no task 'words'\n  expected: topics, keywords"):
            load(f"openclipart:{tmp_path}", task="words")
