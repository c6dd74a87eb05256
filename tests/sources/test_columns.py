"""Columns of a table as a source: one token a column, statistics of the training rows alone, errors with the row."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import complains, net
from torch import Tensor

from mi2p_inject import SourceFeatures, ViewSpec, inject, load
from mi2p_inject.core.errors import SourceError
from mi2p_inject.core.files.seal import sealed
from mi2p_inject.sources.columns import ColumnEncoder, Columns
from mi2p_inject.testing.randomize import randomize_zero_parameters

TRAIN: list[dict[str, Any]] = [
    {"age": 20, "height": 1.5, "town": "Bern", "rooms": 3.0},
    {"age": "40", "height": math.nan, "town": " Chur ", "rooms": 4},
    {"age": None, "height": 1.7, "town": "", "rooms": None},
    {"age": 30.0, "height": 1.6, "town": "Bern", "rooms": "3"},
]
COLUMNS = Columns.fit(TRAIN, numeric=["age", "height"], categorical=["town", "rooms"], width=6)


def test_statistics_are_of_what_is_there() -> None:
    assert COLUMNS.numeric["age"] == (30, pytest.approx(math.sqrt(200 / 3)))
    assert COLUMNS.categorical == {"town": ("Bern", "Chur"), "rooms": ("3", "4")}
    batch = COLUMNS.batch(TRAIN)
    assert batch["codes"].tolist() == [[2, 2], [3, 3], [0, 0], [2, 2]]
    assert batch["numbers"][:, 0].nan_to_num(9).tolist() == pytest.approx([-1.2247449, 1.2247449, 9, 0])
    far = COLUMNS.batch([{"age": 1e300, "height": 0, "town": "Olten", "rooms": True}])
    assert far["numbers"][0, 0] == 10
    assert far["codes"].tolist() == [[1, 1]]


def test_tokens_are_those_of_the_formula() -> None:
    """Column by column, cell by cell."""
    encoder, batch = ColumnEncoder(COLUMNS), COLUMNS.batch(TRAIN)
    tokens = encoder(**batch)
    assert tokens.shape == (4, 4, 6)
    for row in range(4):
        for at in range(2):
            number = float(batch["numbers"][row, at])
            expected = encoder.missing[at] if math.isnan(number) else number * encoder.slopes[at] + encoder.biases[at]
            torch.testing.assert_close(tokens[row, at], expected)
    assert torch.equal(tokens[0, 2:], tokens[3, 2:])
    assert len({tuple(row.tolist()) for row in encoder.categories}) == 8  # two columns: missing, unseen, two categories
    unseen = encoder(**COLUMNS.batch([{**TRAIN[0], "town": "Olten"}]))
    assert not any(torch.equal(unseen[0, 2], tokens[row, 2]) for row in range(4))


def test_vectors_do_not_depend_on_the_other_columns(tmp_path: Path) -> None:
    fewer = Columns.fit(TRAIN, categorical=["rooms"], width=6)
    assert torch.equal(ColumnEncoder(fewer).categories, ColumnEncoder(COLUMNS).categories[4:])
    COLUMNS.save(tmp_path / "columns.json")
    again = Columns.load(tmp_path / "columns.json")
    assert again == COLUMNS
    batch = COLUMNS.batch(TRAIN)
    assert torch.equal(ColumnEncoder(again)(**batch), ColumnEncoder(COLUMNS)(**batch))
    # a number that any release and machine must draw
    assert ColumnEncoder(COLUMNS).slopes[0, 0].item() == pytest.approx(-1.6874184)


def test_columns_beside_words_in_a_picture_model(tmp_path: Path) -> None:
    pictures, batch = torch.randn(4, 3, 8, 8), COLUMNS.batch(TRAIN)
    words = torch.randn(4, 5, 12)
    encoder = {"columns": ColumnEncoder(COLUMNS)}
    given: dict[str, Any] = {"source_example_inputs": {"columns": batch}}
    me = inject(
        net(), "0", source_encoder=encoder, source_spec={"text": ViewSpec.tokens(12)}, example_inputs=pictures, **given
    )
    plain = me(pictures)
    assert torch.equal(me(pictures, source={"columns": batch}), plain)
    randomize_zero_parameters(me.units, strength=1.0)
    source: dict[str, Any] = {"columns": batch, "text": SourceFeatures(words)}
    output: Tensor = me(pictures, source=source)
    assert not torch.equal(output, me(pictures, source={"text": source["text"]}))
    me.save_pretrained(tmp_path)
    again = load(tmp_path, backbone=net(), source_encoder={"columns": ColumnEncoder(COLUMNS)}, **given)
    assert torch.equal(again(pictures, source=source), output)


def row(**cells: Any) -> list[dict[str, Any]]:
    return [TRAIN[0], {**TRAIN[1], **cells}]


BAD: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str]] = {
    "a word": (row(age="old"), {"numeric": ["age"]}, "row 2: the cell of the numeric column 'age'"),
    "thousands": (row(age="1,234"), {"numeric": ["age"]}, "without thousand separators"),
    "an underscore": (row(age="1_234"), {"numeric": ["age"]}, "row 2"),
    "infinite": (row(age=math.inf), {"numeric": ["age"]}, "no finite number"),
    "a list": (row(age=[1]), {"numeric": ["age"]}, "no finite number"),
    "misspelt": (TRAIN, {"numeric": ["aeg"]}, "did you mean 'age'"),
    "all missing": ([{"age": None}, {"age": " "}], {"numeric": ["age"]}, "missing in every row"),
    "twice": (TRAIN, {"numeric": ["age"], "categorical": ["age"]}, "given twice"),
    "the label": (TRAIN, {"categorical": ["town"], "label": "town"}, "is the label"),
    "nothing": (TRAIN, {}, "nothing to read"),
    "no rows": ([], {"numeric": ["age"]}, "nothing to read"),
    "ids": ([{"id": str(n)} for n in range(10_001)], {"categorical": ["id"]}, "too many categories"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_columns(case: str) -> None:
    rows, options, says = BAD[case]
    with complains(SourceError, says):
        Columns.fit(rows, **options)


def test_bad_batches_and_files(tmp_path: Path) -> None:
    with complains(SourceError, "row 2 has no column 'town'"):
        COLUMNS.batch([TRAIN[0], {name: cell for name, cell in TRAIN[0].items() if name != "town"}])
    path = tmp_path / "columns.json"
    for text in ("", "[]", '{"width": 0}', '{"width": 6, "seed": 0, "numeric": [{"name": "a", "mean": "x"}]}'):
        path.write_text(text)
        with complains(SourceError, "column"):
            Columns.load(path)


class TestHostile:
    def test_numbers_as_large_as_they_come(self) -> None:
        rows = [{"a": 1.7e308, "b": 1e200, "c": 5e-324}, {"a": -1.7e308, "b": 3e200, "c": 0}]
        columns = Columns.fit([*rows, *rows], numeric=["a", "b", "c"])
        assert columns.numeric["a"] == pytest.approx((0, 1.7e308))
        assert columns.numeric["b"] == pytest.approx((2e200, 1e200))
        numbers = columns.batch(rows)["numbers"]
        assert numbers[:, :2].tolist() == [[pytest.approx(1), pytest.approx(-1)], [pytest.approx(-1), pytest.approx(1)]]
        assert numbers.isfinite().all()

    def test_what_pandas_and_numpy_call_missing(self) -> None:
        cells = [pd.NA, pd.NaT, np.float32("nan"), np.float64("nan"), None, "  "]
        rows = [{"n": 1, "c": "a"}, *({"n": cell, "c": cell} for cell in cells)]
        columns = Columns.fit(rows, numeric=["n"], categorical=["c"])
        assert columns.categorical == {"c": ("a",)}
        batch = columns.batch(rows)
        assert batch["numbers"].isnan().tolist() == [[False]] + [[True]] * len(cells)
        assert batch["codes"].tolist() == [[2]] + [[0]] * len(cells)

    def test_categories_that_look_the_same_are_one(self) -> None:
        rows = [{"c": "Zu\u0308rich"}, {"c": "Z\u00fcrich"}, {"c": np.float32(3)}, {"c": 3}, {"c": "3"}]
        assert Columns.fit(rows, categorical=["c"]).categorical == {"c": ("3", "Z\u00fcrich")}

    def test_an_array_in_a_cell(self) -> None:
        with complains(SourceError, "row 1", "no finite number"):
            Columns.fit([{"a": np.zeros(2)}], numeric=["a"])

    def test_half_characters_are_saved_and_read(self, tmp_path: Path) -> None:
        columns = Columns.fit([{"c\ud83d": "\ud83d"}], categorical=["c\ud83d"])
        columns.save(tmp_path / "columns.json")
        assert Columns.load(tmp_path / "columns.json") == columns

    @pytest.mark.parametrize("options", [{"width": 0}, {"width": 2**31}, {"width": "6"}, {"seed": -1}, {"seed": 1.5}])
    def test_sizes(self, options: dict[str, Any]) -> None:
        with complains(SourceError, next(iter(options))):
            Columns.fit(TRAIN, numeric=["age"], **options)

    @pytest.mark.fault("S8", "a changed value in a file of columns", "SourceError: not what was saved")
    def test_every_changed_character_is_found(self, tmp_path: Path) -> None:
        path = tmp_path / "columns.json"
        COLUMNS.save(path)
        text = path.read_text()
        for at, letter in enumerate(text):
            if letter.isalnum():
                path.write_text(text[:at] + ("7" if letter != "7" else "3") + text[at + 1 :])
                with complains(SourceError, "column"):
                    Columns.load(path)

    @pytest.mark.parametrize(
        "change",
        [
            lambda data: data["numeric"][0].update(deviation=0),  # 0 / 0 would be missing
            lambda data: data["numeric"][0].update(deviation=-1.0),
            lambda data: data["numeric"][0].update(mean=10**400),
            lambda data: data["numeric"][1].update(name="age"),
            lambda data: data["categorical"][0].update(name="age"),
            lambda data: data["categorical"][0].update(categories=["Bern", "Bern"]),
            lambda data: data["categorical"][0].update(categories=[str(number) for number in range(10_001)]),
            lambda data: data.update(width=2**31),
            lambda data: data.update(numeric=[], categorical=[]),
        ],
    )
    @pytest.mark.fault("S8", "a forged file of columns whose checksum is right", "SourceError; no memory is taken")
    def test_forged(self, change: Any, tmp_path: Path) -> None:
        path = tmp_path / "columns.json"
        COLUMNS.save(path)
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(sealed(data)))
        with complains(SourceError, "column"):
            Columns.load(path)
