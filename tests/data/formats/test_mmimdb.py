"""MM-IMDb in exactly its published format, with the hazards of the real files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from data_files import Load, load, note, sizes, write
from published_files import imdb

from mi2p_inject.recipes.data.formats.mmimdb import GENRES
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["load"]


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

    def test_genres_in_one_text_and_empty_plots_in_a_list(self, tmp_path: Path, load: Load) -> None:
        imdb(tmp_path)
        film = {"plot": [None, "The plot"], "genres": "Thriller, Drama"}
        write(tmp_path / "dataset/5000003.json", json.dumps(film))
        row = load(f"mmimdb:{tmp_path}").splits["train"][3]
        assert (row["text"], [GENRES[number] for number in row["label"]]) == ("The plot", ["Drama", "Thriller"])

    @pytest.mark.parametrize(
        "film",
        [[], None, "Drama", {"plot": 5}, {"plot": [{"a": "b"}]}, {"plot": ["p"], "genres": [["Drama"]]}],
        ids=str,
    )
    def test_a_file_that_is_no_film_is_named(self, film: object, tmp_path: Path, load: Load) -> None:
        imdb(tmp_path)
        write(tmp_path / "dataset/5000003.json", json.dumps(film))
        with pytest.raises(RecipeError, match=r"5000003\.json is no film of MM-IMDB"):
            load(f"mmimdb:{tmp_path}")

    @pytest.mark.parametrize(
        ("train", "message"),
        [
            (None, "no lists train, dev and test"),
            ("0000001", "no lists train, dev and test"),
            ({"a": 1}, "no lists train, dev and test"),
            (["x" * 5000], "1 entries are no numbers of films"),
            (["../dataset/5000000", None, 1.5], "2 entries are no numbers of films"),
        ],
        ids=["null", "a text", "an object", "a long name", "a path"],
    )
    def test_splits_that_are_no_lists_of_films(self, train: object, message: str, tmp_path: Path, load: Load) -> None:
        imdb(tmp_path)
        split = json.loads((tmp_path / "split.json").read_text())
        write(tmp_path / "split.json", json.dumps({**split, "train": train}))
        with pytest.raises(RecipeError, match=message):
            load(f"mmimdb:{tmp_path}")

    def test_unpacked_deeper(self, tmp_path: Path, load: Load) -> None:
        imdb(tmp_path / "archive" / "mmimdb")
        assert len(load(f"mmimdb:{tmp_path}").splits["train"]) == 23

    def test_the_hdf5_file(self, tmp_path: Path, load: Load) -> None:
        write(tmp_path / "multimodal_imdb.hdf5", "HDF")
        with pytest.raises(RecipeError, match=r"is no folder[^?]*unpack it"):
            load(f"mmimdb:{tmp_path}/multimodal_imdb.hdf5")

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
