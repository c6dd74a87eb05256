"""Splits: made and given, duplicates across them, labels, class weights."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from data_files import Load, draw, load, note, sizes, write
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from mi2p_inject.recipes.data import Samples
from mi2p_inject.recipes.data.duplicates import common_keys, file_keys, merge_groups, near_duplicate_groups, text_key
from mi2p_inject.recipes.data.labels import check_seen_in_training, classes_of, number_labels
from mi2p_inject.recipes.data.splits.stratified import split_rows, take_validation
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["load"]


def table(folder: Path, rows: list[tuple[str, str, str, str]]) -> Path:
    """A table with image, text, label and split."""
    lines = ["image,text,label" + (",split" if rows[0][3] else ""), *(",".join(filter(None, row)) for row in rows)]
    return write(folder / "a.csv", "\n".join(lines) + "\n")


def split_of(samples: Samples) -> dict[str, str]:
    return {one: name for name, split in samples.splits.items() for one in split["id"]}


class TestMadeParts:
    @settings(max_examples=15, deadline=None)
    @given(st.integers(0, 5), st.lists(st.integers(3, 60), min_size=2, max_size=4), st.integers(1, 4))
    def test_complete_disjoint_whole_groups_every_class_in_training(
        self, seed: int, sizes: list[int], size: int
    ) -> None:
        labels = np.repeat(np.arange(len(sizes)), [one * size for one in sizes])
        groups = np.arange(len(labels)) // size
        if len(np.unique(groups)) < 10:
            return
        splits = split_rows(labels, groups, seed).splits()
        assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(len(labels)))
        assert set(labels[splits["train"]]) == set(range(len(sizes)))
        for first, second in itertools.combinations(splits.values(), 2):
            assert not set(groups[first]) & set(groups[second])

    @pytest.mark.parametrize("size", [1, 3])
    def test_many_rows(self, size: int) -> None:
        labels = np.arange(24_000) // size % 5
        groups = np.arange(24_000) // size
        groups[:300] = 0  # one large group among them
        splits = split_rows(labels, groups, 0).splits()
        assert [len(rows) / 24_000 for rows in splits.values()] == pytest.approx([0.6, 0.1, 0.3], abs=0.02)
        for rows in splits.values():
            assert np.bincount(labels[rows]) / len(rows) == pytest.approx([0.2] * 5, abs=0.02)
        for first, second in itertools.combinations(splits.values(), 2):
            assert not set(groups[first]) & set(groups[second])

    def test_a_class_of_two_is_refused_by_name(self) -> None:
        with pytest.raises(RecipeError, match=r"class 'rare' has 2 independent samples[\s\S]*join rare classes"):
            split_rows(np.array([0] * 30 + [1] * 2), np.arange(32), 0, ("usual", "rare"))

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 5), st.lists(st.integers(3, 9), min_size=1, max_size=5), st.integers(1, 3))
    def test_every_class_below_ten_is_in_each_split(self, seed: int, sizes: list[int], size: int) -> None:
        labels = np.repeat(np.arange(len(sizes)), [one * size for one in sizes])
        groups = np.arange(len(labels)) // size
        splits = split_rows(labels, groups, seed).splits()
        assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(len(labels)))
        for rows in splits.values():
            assert set(labels[rows]) == set(range(len(sizes)))
        for first, second in itertools.combinations(splits.values(), 2):
            assert not set(groups[first]) & set(groups[second])
        assert all(
            np.array_equal(rows, split_rows(labels, groups, seed).splits()[name]) for name, rows in splits.items()
        )

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 5), st.lists(st.integers(1, 9), min_size=1, max_size=5))
    def test_validation_of_classes_below_ten(self, seed: int, sizes: list[int]) -> None:
        labels = np.repeat(np.arange(len(sizes)), sizes)
        rows = np.arange(len(labels))
        if max(sizes) == 1:
            with pytest.raises(RecipeError, match="no class has two independent training samples"):
                take_validation(rows, labels, rows, seed)
            return
        train, validation = take_validation(rows, labels, rows, seed)
        assert sorted([*train, *validation]) == rows.tolist()
        assert set(labels[train]) == set(labels)
        assert set(labels[validation]) == {label for label, count in enumerate(sizes) if count > 1}

    @settings(max_examples=40, deadline=None)
    @given(st.integers(0, 50), st.integers(3, 12), st.integers(1, 4))
    def test_few_groups_of_several_classes(self, seed: int, number: int, classes: int) -> None:
        groups = np.repeat(np.arange(number), 20)
        labels = np.random.default_rng(seed).integers(0, classes, len(groups))
        assume(all(len(set(groups[labels == label])) > 2 for label in set(labels)))  # fewer are refused
        splits = split_rows(labels, groups, seed).splits()
        assert all(len(rows) for rows in splits.values())
        assert set(labels[splits["train"]]) == set(labels)
        assert sum(len(set(groups[rows])) for rows in splits.values()) == number
        train, validation = take_validation(np.arange(len(groups)), labels, groups, seed)
        assert set(labels[train]) == set(labels)
        assert 0 < len(validation) <= len(groups) / 2

    def test_the_note_says_what_came_out(self, tmp_path: Path, load: Load) -> None:
        rows = [f"text {i},{'ab'[i % 2]},patient {i % 3}" for i in range(60)]
        samples = load(write(tmp_path / "a.csv", "\n".join(["text,label,group", *rows])))
        assert sizes(samples) == {"train": 20, "validation": 20, "test": 20}
        assert note(samples, "split 60/10/30").endswith("seed 0; it came out as 33/33/33")
        lines = [f"{row},{'test' if i % 3 == 2 else 'train'}" for i, row in enumerate(rows)]
        samples = load(write(tmp_path / "b.csv", "\n".join(["text,label,group,split", *lines])))
        assert note(samples, "validation: a tenth").endswith("it came out as 50/50")
        plain = [one.rpartition(",")[0] for one in rows]
        assert note(load(write(tmp_path / "c.csv", "\n".join(["text,label", *plain]))), "split 60").endswith("seed 0")

    @pytest.mark.parametrize("seed", range(4))
    def test_samples_that_are_left_out_fill_no_split(self, seed: int, tmp_path: Path, load: Load) -> None:
        for i in range(8):
            draw(tmp_path / f"{i}.png", i)
        rows = [f"{f'{i}.png' if i < 8 else ''},text {i},{'ab'[i % 2]}" for i in range(60)]
        path = write(tmp_path / "a.csv", "\n".join(["image,text,label", *rows]))
        found = sizes(load(path, missing="drop", seed=seed))
        assert len(found) == 3
        assert sum(found.values()) == 8

    def test_a_split_that_would_be_empty_is_an_error(self, tmp_path: Path, load: Load) -> None:
        for i in range(3):  # two of them stay in training, with a label of their own
            draw(tmp_path / f"{i}.png", i)
        rows = [f"{f'{i}.png' if i < 3 else ''},text {i},{('a|r', 'a|s', 'a')[min(i, 2)]}" for i in range(12)]
        path = write(tmp_path / "a.csv", "\n".join(["image,text,label", *rows]))
        words = r"none is left for [\s\S]*given: 3 samples in 3 groups[\s\S]*column 'split'"
        with pytest.raises(RecipeError, match=words):
            load(path, missing="drop")

    def test_a_tenth_for_validation(self) -> None:
        labels = np.array([0] * 80 + [1] * 40 + [2] * 80)
        groups = np.arange(200) // 2
        train, validation = take_validation(np.arange(120), labels, groups, seed=1)
        assert sorted([*train, *validation]) == list(range(120))
        assert Counter(labels[validation]) == {0: 8, 1: 4}
        assert not set(groups[train]) & set(groups[validation])

    def test_duplicates_stay_together(self, tmp_path: Path, load: Load) -> None:
        rows = []
        for i in range(60):
            draw(tmp_path / f"{i}.png", i - i % 3 if i < 30 else i)  # the first ten pictures come three times
            text = f"words {i - i % 2}" if i >= 30 else f"other words {i}"  # the last fifteen texts come twice
            rows.append((f"{i}.png", text, "ab"[i // 6 % 2], ""))
        samples = load(table(tmp_path, rows))
        where = split_of(samples)
        assert len(set(where.values())) == 3
        for i in range(60):
            first = i - i % 3 if i < 30 else i - i % 2
            assert where[str(i + 1)] == where[str(first + 1)]
        assert "25 groups" in note(samples, "split 60/10/30")

    def test_very_common_texts_are_no_duplicates(self, tmp_path: Path, load: Load) -> None:
        rows = [(f"{i}.png", "photo" if i < 25 else f"words {i}", "ab"[i % 2], "") for i in range(60)]
        for i in range(60):
            draw(tmp_path / f"{i}.png", i)
        samples = load(table(tmp_path, rows))
        assert note(samples, "very common") == "25 samples share 1 very common text(s), not taken as duplicates"
        assert "60 groups" in note(samples, "split 60/10/30")


class TestDuplicates:
    def rows(self, folder: Path) -> Path:
        """Training with three samples that the test has as well: same words, same file, alike picture."""
        splits = ["train"] * 20 + ["val"] * 6 + ["test"] * 10
        for i in range(36):
            draw(folder / f"{i}.png", i)
        (folder / "1.png").write_bytes((folder / "30.png").read_bytes())
        with Image.open(folder / "31.png") as picture:
            ImageEnhance.Brightness(picture.resize((48, 48))).enhance(0.9).save(folder / "2.png")
        texts = [f"text {i}" for i in range(36)]
        texts[0], texts[32] = "RT @me: Flood in Kerala! https://t.co/1", "flood in kerala"
        texts[21], texts[33] = "same", "Same."
        return table(folder, [(f"{i}.png", texts[i], "ab"[i % 2], splits[i]) for i in range(36)])

    def test_are_reported(self, tmp_path: Path, load: Load) -> None:
        samples = load(self.rows(tmp_path))
        assert [one for one in samples.notes if one.startswith("duplicates")] == [
            "duplicates: of 10 test samples, train has 1 by text and 1 by image",
            "duplicates: of 10 test samples, validation has 1 by text",
        ]
        assert len(samples.splits["train"]) == 20

    def test_are_dropped_on_request_never_from_the_test(self, tmp_path: Path, load: Load) -> None:
        path = self.rows(tmp_path)
        whole, exact, near = (set(split_of(load(path, dedupe=kind))) for kind in ("none", "exact", "near"))
        assert whole - exact == {"1", "2", "22"}
        assert whole - near == {"1", "2", "3", "22"}

    def test_groups_across_given_splits_are_reported(self, tmp_path: Path, load: Load) -> None:
        parts = ("train", "train", "val", "test", "test")  # a group of five is in each; the last groups are one apiece
        lines = [f"text {i},{'ab'[i // 2 % 2]},g{i // 5 if i < 30 else i},{parts[i % 5]}" for i in range(40)]
        path = write(tmp_path / "a.csv", "\n".join(["text,label,group,split", *lines]) + "\n")
        for dedupe in ("none", "exact"):
            found = [one for one in load(path, dedupe=dedupe).notes if one.startswith("groups")]
            assert found == [
                "groups: of 8 validation samples, 6 are of a group that train has too; dedupe does not drop them",
                "groups: of 16 test samples, 12 are of a group that train has too; dedupe does not drop them",
                "groups: of 16 test samples, 12 are of a group that validation has too; dedupe does not drop them",
            ]
        made = write(tmp_path / "made.csv", "\n".join(["text,label,group", *(one.rpartition(",")[0] for one in lines)]))
        assert not [one for one in load(made).notes if one.startswith("groups")]

    def test_the_last_sample_of_a_class_dropped_is_an_error(self, tmp_path: Path, load: Load) -> None:
        rows = [(f"{i}.png", f"text {i}", "ab"[i % 2], "train" if i < 10 else "test") for i in range(20)]
        rows[1] = ("1.png", "text 15", "c", "train")
        rows[15] = ("15.png", "text 15", "c", "test")
        for i in range(20):
            draw(tmp_path / f"{i}.png", i)
        path = table(tmp_path, [(*row[:3], "dev" if i in (2, 3) else row[3]) for i, row in enumerate(rows)])
        with pytest.raises(RecipeError, match=r"sample has: 'c' \(1\)[\s\S]*dedupe dropped 1 training samples"):
            load(path, dedupe="exact")

    @pytest.mark.parametrize(
        ("first", "second", "same"),
        [
            ("Flood in Kerala!", "flood  in KERALA", True),
            ("RT @abc: help &amp; hope https://t.co/x1", "help  hope", True),
            ("flood in Kerala", "flood in Karnataka", False),
            ("#flood", "flood", True),
            ("洪水 救援", "洪水", False),
            ("Long  page. " * 200, "long page. " * 200, True),
            ("long page. " * 200, "long page! " * 200, False),
        ],
    )
    def test_texts(self, first: str, second: str, same: bool) -> None:
        assert (text_key(first) == text_key(second)) is same

    @pytest.mark.parametrize("text", [None, "", "  ", "https://t.co/abc", "!!!"])
    def test_no_words_no_key(self, text: str | None) -> None:
        assert text_key(text) is None

    def test_files(self, tmp_path: Path) -> None:
        middle = bytearray(40_000)
        content = {"a": b"x" * 40_000, "b": b"x" * 40_000, "c": b"x" * 39_999, "d": bytes(middle), "empty": b""}
        middle[100] = 1  # outside of what is read at first
        content["e"] = bytes(middle)
        for name, data in content.items():
            (tmp_path / name).write_bytes(data)
        keys = file_keys([str(tmp_path / name) for name in [*content, "missing", ""]])
        found = [keys[str(tmp_path / name)] for name in ("a", "b", "c", "d", "e")]
        assert found[0] == found[1]
        assert len(set(found)) == 4
        assert [keys[f"{tmp_path}/{name}"] for name in ("empty", "missing")] == [None, None]

    def test_alike_pictures(self, tmp_path: Path) -> None:
        with Image.open(draw(tmp_path / "a.png", 1)) as picture:
            picture.resize((100, 90)).convert("L").save(tmp_path / "b.jpg", quality=70)
        draw(tmp_path / "c.png", 2)
        Image.new("RGB", (20, 20), "red").save(tmp_path / "d.png")
        write(tmp_path / "e.png", "no image")
        keys = near_duplicate_groups([str(tmp_path / name) for name in ("a.png", "b.jpg", "c.png", "d.png", "e.png")])
        found = {Path(path).name: key for path, key in keys.items()}
        assert found["a.png"] == found["b.jpg"] != found["c.png"]
        assert found.keys() == {"a.png", "b.jpg", "c.png"}

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(*[st.none() | st.integers(0, 6)] * 3), min_size=1, max_size=14))
    def test_groups_are_connected_components(self, keys: list[tuple[int | None, ...]]) -> None:
        found = merge_groups(*map(list, zip(*keys, strict=True)))
        reach = np.eye(len(keys), dtype=bool)
        for i, j in itertools.product(range(len(keys)), repeat=2):
            reach[i, j] |= any(a is not None and a == b for a, b in zip(keys[i], keys[j], strict=True))
        for _ in keys:
            reach = (reach.astype(int) @ reach.astype(int)) > 0
        assert all((found[i] == found[j]) == reach[i, j] for i, j in itertools.product(range(len(keys)), repeat=2))

    def test_common(self) -> None:
        assert common_keys(["a"] * 21 + ["b"] * 20 + [None] * 50) == {"a"}
        assert common_keys(["a"] * 30 + list(range(4000))) == set()


class TestLabels:
    def test_order(self) -> None:
        assert classes_of([("10",), ("9",), ("9",)], "x") == ("9", "10")
        assert classes_of([("10",), ("9",), ("b",)], "x") == ("10", "9", "b")

    def test_version_like_names_are_names(self) -> None:
        assert classes_of([("1.5",), ("v2.0",)], "x") == ("1.5", "v2.0")

    def test_numbers(self) -> None:
        labels = [("b",), ("a",), ("b",)]
        assert number_labels(labels, "123", ("a", "b"), False, "x") == [1, 0, 1]
        assert number_labels([("b", "a"), ()], "12", ("a", "b"), True, "x") == [[0, 1], []]
        with pytest.raises(RecipeError, match="1 of 3 samples have several labels: 2"):
            number_labels([("a",), ("a", "b"), ("b",)], "123", ("a", "b"), False, "x")

    def test_one_class_in_training(self) -> None:
        splits = {"train": np.array([0, 1]), "test": np.array([2])}
        with pytest.raises(RecipeError, match="training: one class only, 'a'"):
            check_seen_in_training([("a",)] * 3, splits, ("a", "b"), "x")
