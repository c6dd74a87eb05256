"""Classes with few samples: split where it can be done, kept in training or dropped where not, never a traceback."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from data_files import Load, load, note

from mi2p_inject.recipes.data import Samples
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["load"]


def table(folder: Path, labels: list[Any], **columns: list[Any]) -> Path:
    """Texts with these labels, each its own."""
    rows = [{"text": f"word {i}", "label": label} for i, label in enumerate(labels)]
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    path = folder / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def counts(samples: Samples) -> dict[str, dict[str, int]]:
    """Split -> class -> number of samples."""
    found = {}
    for split, rows in samples.splits.items():
        numbers = [[one] if isinstance(one, int) else one for one in rows["label"]]
        found[split] = dict(Counter(samples.classes[one] for row in numbers for one in row))
    return found


class TestFew:
    @pytest.mark.parametrize("each", [3, 4, 9, 10, 11])
    @pytest.mark.parametrize("classes", [2, 3, 20])
    @pytest.mark.fault("tables", "classes of three to nine rows", "each class is in each split")
    def test_every_class_is_in_each_split(self, each: int, classes: int, tmp_path: Path, load: Load) -> None:
        samples = load(table(tmp_path, [f"c{i % classes}" for i in range(each * classes)]))
        found = counts(samples)
        assert sum(sum(split.values()) for split in found.values()) == each * classes
        assert len(found["train"]) == classes
        if each < 10:
            assert len(found["validation"]) == len(found["test"]) == classes

    @pytest.mark.parametrize("rare_classes", ["keep", "drop"])
    @pytest.mark.fault("tables", "a made split without a sample of some class", "a note names it")
    def test_a_split_without_a_class(self, rare_classes: str, tmp_path: Path, load: Load) -> None:
        path = table(tmp_path, ["a", "b"] * 20 + ["c"] * 3)
        for seed in range(8):
            samples = load(path, seed=seed, rare_classes=rare_classes)
            found = counts(samples)
            for split in found:
                told = any(one == f"{split} has no sample of 'c'" for one in samples.notes)
                assert told == ("c" not in found[split])

    @pytest.mark.parametrize("each", [2, 3, 9, 30])
    @pytest.mark.fault("tables", "given splits without validation", "one is made of the training rows")
    def test_a_given_split_without_validation(self, each: int, tmp_path: Path, load: Load) -> None:
        labels = [f"c{i % 3}" for i in range(6 * each)]
        samples = load(table(tmp_path, labels, split=["train"] * 3 * each + ["test"] * 3 * each))
        found = counts(samples)
        assert set(found) == {"train", "validation", "test"}
        assert len(found["train"]) == len(found["validation"]) == len(found["test"]) == 3

    def test_one_training_sample_a_class(self, tmp_path: Path, load: Load) -> None:
        path = table(tmp_path, ["a", "b"] * 3, split=["train"] * 2 + ["test"] * 4)
        with pytest.raises(RecipeError, match=r"no class has two independent training samples[\s\S]*column 'split'"):
            load(path)

    @pytest.mark.fault("tables", "too few rows to split", "RecipeError")
    def test_nothing_can_be_split(self, tmp_path: Path, load: Load) -> None:
        with pytest.raises(RecipeError, match=r"no class has 3 independent samples[\s\S]*'a' 2, 'b' 2"):
            load(table(tmp_path, ["a", "b"] * 2))

    def test_duplicates_count_as_one(self, tmp_path: Path, load: Load) -> None:
        samples = load(table(tmp_path, ["a", "b"] * 15 + ["c"] * 6, group=[*range(30), *[99] * 6]))
        assert counts(samples)["train"]["c"] == 6
        assert "'c' (1)" in note(samples, "stay in training")

    def test_a_class_whose_training_sample_is_empty(self, tmp_path: Path, load: Load) -> None:
        """Its other samples go to training instead."""
        for seed in range(5):
            path = table(tmp_path, ["a", "b"] * 10 + ["c"] * 4)
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            first = load(path, seed=seed)
            trained = [int(row["id"]) for row in first.splits["train"] if first.classes[row["label"]] == "c"]
            for one in trained:
                rows[one - 1]["text"] = ""
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            if len(trained) == 1:
                assert "c" in counts(load(path, seed=seed))["train"]


LABELS = [*["a", "b"] * 15, "c", "c", "d"]


class TestRare:
    @pytest.mark.fault("tables", "a class of one or two rows", "stays in training, with a note")
    def test_stay_in_training_with_a_note(self, tmp_path: Path, load: Load) -> None:
        samples = load(table(tmp_path, LABELS))
        assert samples.classes == ("a", "b", "c", "d")
        found = counts(samples)
        assert (found["train"]["c"], found["train"]["d"]) == (2, 1)
        assert not {"c", "d"} & {*found["validation"], *found["test"]}
        assert note(samples, "stay in training").startswith(
            "classes with fewer than 3 independent samples stay in training: 'd' (1), 'c' (2); macro-F1 leaves out"
        )

    def test_are_dropped_on_request(self, tmp_path: Path, load: Load) -> None:
        samples = load(table(tmp_path, LABELS), rare_classes="drop")
        assert samples.classes == ("a", "b")
        assert sum(sum(split.values()) for split in counts(samples).values()) == 30
        assert note(samples, "left out") == (
            "left out: classes with fewer than 3 independent samples: 'd' (1), 'c' (2); 3 samples had no other label"
        )
        assert "duplicates together (30 groups)" in note(samples, "split 60/10/30")  # of those that stay
        assert samples.fingerprint != load(table(tmp_path, LABELS)).fingerprint

    def test_the_limit_is_the_users(self, tmp_path: Path, load: Load) -> None:
        path = table(tmp_path, [*["a", "b"] * 15, *["c"] * 6])
        assert "c" in counts(load(path))["test"]
        assert counts(load(path, min_class_samples=7))["train"]["c"] == 6
        assert load(path, min_class_samples=7, rare_classes="drop").classes == ("a", "b")
        assert load(path, min_class_samples=0).classes == ("a", "b", "c")

    def test_given_splits(self, tmp_path: Path, load: Load) -> None:
        split = [["train", "validation", "test"][i % 3] for i in range(33)]
        path = table(tmp_path, LABELS, split=split)
        with pytest.raises(RecipeError, match=r"that no training sample has: 'd'|'c'"):
            load(path)
        assert load(path, rare_classes="drop").classes == ("a", "b")

    def test_one_class_is_left(self, tmp_path: Path, load: Load) -> None:
        with pytest.raises(RecipeError, match="one class only"):
            load(table(tmp_path, ["a"] * 30 + ["b"] * 2), rare_classes="drop")

    def test_no_class_is_left(self, tmp_path: Path, load: Load) -> None:
        with pytest.raises(RecipeError, match=r"(?s)leaves no class.*40.*lower min_class_samples"):
            load(table(tmp_path, ["a", "b"] * 15), rare_classes="drop", min_class_samples=40)

    def test_several_labels_a_sample(self, tmp_path: Path, load: Load) -> None:
        labels = [["a"], ["b"], ["a", "b"]] * 10 + [["a", "rare"], ["rare"]]
        kept = load(table(tmp_path, labels))
        assert counts(kept)["train"]["rare"] == 2
        dropped = load(table(tmp_path, labels), rare_classes="drop")
        assert dropped.classes == ("a", "b")
        assert sum(map(len, dropped.splits.values())) == 31  # the one that was rare alone is gone
        assert "1 samples had no other label" in note(dropped, "left out")

    def test_a_common_label_that_is_the_rarest_of_few_samples(self, tmp_path: Path, load: Load) -> None:
        """It has samples enough, though the split keeps those even of which it is the rarest label."""
        labels = [["a"]] * 10 + [["a", "b"]] * 12 + [["b", "c"]] * 2 + [["c", "a", "b"]] * 20
        samples = load(table(tmp_path, labels))
        assert not [one for one in samples.notes if "stay in training" in one]
        assert set(counts(samples)["test"]) == {"a", "b", "c"}

    def test_evaluation_takes_what_there_is(self, tmp_path: Path, load: Load) -> None:
        samples = load(table(tmp_path, ["a", "b"]), classes=("a", "b", "c"), rare_classes="drop", min_class_samples=9)
        assert len(samples.splits["test"]) == 2


class TestPrediction:
    """Labels and splits are not read, every row stays, in the order of the file."""

    def test_every_row(self, tmp_path: Path, load: Load) -> None:
        path = table(
            tmp_path, [{"no": "label"}, "x", 3.5, None], split=["2024-05", "train", "", "dev"], text=["", "b", "c", "d"]
        )
        samples = load(path, labelled=False, classes=("a", "b"))
        assert list(samples.splits) == ["test"]
        assert samples.splits["test"]["id"][:] == ["1", "2", "3", "4"]
        assert samples.splits["test"]["text"][:] == [None, "b", "c", "d"]
