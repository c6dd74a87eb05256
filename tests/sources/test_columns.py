"""Columns of a table as a source: one token a column, statistics of the training rows alone, errors with the row."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import complains, net
from torch import Tensor

from mi2p_inject import SourceFeatures, ViewSpec, inject, load
from mi2p_inject.core.errors import SourceError
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
