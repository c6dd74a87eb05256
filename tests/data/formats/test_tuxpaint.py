"""Tux Paint's stamps, in exactly the package's layout."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_files import Load, draw, load, note, write

from mi2p_inject.recipes.errors import RecipeError

__all__ = ["load"]


class TestTuxPaint:
    def test_sentences_and_topics(self, tmp_path: Path, load: Load) -> None:
        for topic in ("animals", "food", "sports"):
            for i in range(8):
                stamp = tmp_path / topic / "some" / f"thing{i}"
                draw(stamp.with_suffix(".png"), i + len(topic))
                write(stamp.with_suffix(".txt"), f"A {topic} thing, number {'abcdefgh'[i]}.\nde.utf8=Ein Ding.\n")
                write(stamp.with_suffix(".dat"), "noflip")
        draw(tmp_path / "animals/some/thing0_mirror.png")
        draw(tmp_path / "food/mute.png")
        write(tmp_path / "food/drawing.svg", "<svg/>")
        write(tmp_path / "food/drawing.txt", "A drawing.\n")
        write(tmp_path / "food/some/thing1.svg", "<svg/>")  # beside its PNG
        samples = load(f"tuxpaint:{tmp_path}")
        rows = {row["id"]: row for split in samples.splits.values() for row in split}
        assert samples.classes == ("animals", "food")  # sports are too few in the package
        assert len(rows) == 16
        assert rows["animals/some/thing1"]["text"] == "A animals thing, number b."
        assert note(samples, "drawings") == "1 stamps are drawings (.svg) and are left out."
        assert note(samples, "left out: ") == "left out: 1 rows: no text"
        assert note(samples, "Tux Paint")

    def test_not_installed(self, tmp_path: Path, load: Load) -> None:
        with pytest.raises(RecipeError, match="apt-get install tuxpaint-stamps-default"):
            load(f"tuxpaint:{tmp_path}")
