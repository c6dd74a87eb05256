"""Numeric and categorical columns of a table as a source: a frozen tokenizer, one token a column.

Source: the feature tokenizer of FT-Transformer (https://arxiv.org/abs/2106.11959): a number times a vector of its
column plus a bias, a category's own vector. There they are learned; here they are fixed random vectors, as a source
does not train, and the units that read them learn what to make of them. That is our reading.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mi2p_inject.core.errors import SourceError
from mi2p_inject.core.files.atomic_write import write_file
from mi2p_inject.core.files.json_rules import TEXT, ListOf, Rule, Schema, fault, is_int
from mi2p_inject.core.files.read import read_regular
from mi2p_inject.core.files.seal import sealed
from mi2p_inject.core.registry import closest
from mi2p_inject.sources.cells import category_in, mean_and_deviation, number_in, spellings

__all__ = ["ColumnEncoder", "Columns"]

MOST_DEVIATIONS = 10.0
"""A number further from its column's mean counts as this far."""
MOST_CATEGORIES = 10_000
MOST_WIDTH = 2**14
_MOST_BYTES = 2**26

_LARGEST = sys.float_info.max
_NUMBER = Rule("a finite number", lambda value: isinstance(value, float) and -_LARGEST <= value <= _LARGEST)
_DEVIATION = Rule("a positive number", lambda value: isinstance(value, float) and 0 < value <= _LARGEST)
_SIZES = {
    "width": Rule(f"a size (1 to {MOST_WIDTH:,})", lambda value: is_int(value, 1, MOST_WIDTH)),
    "seed": Rule("an integer, zero or more", lambda value: is_int(value, 0)),
}
_SCHEMA: Schema = {
    **_SIZES,
    "numeric": ListOf({"name": TEXT, "mean": _NUMBER, "deviation": _DEVIATION}),
    "categorical": ListOf({"name": TEXT, "categories": ListOf(TEXT)}),
}


@dataclass(frozen=True)
class Columns:
    """What is known of the columns, from the rows of the training split alone.

    Attributes:
        numeric: name -> mean and standard deviation of the numbers that are there (1 where all are the same).
        categorical: name -> the categories seen, sorted.
        width: of a token.
        seed: of the fixed vectors.
    """

    numeric: Mapping[str, tuple[float, float]]
    categorical: Mapping[str, tuple[str, ...]]
    width: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if broken := fault({"width": self.width, "seed": self.seed}, _SIZES):
            raise _wrong(
                f"{broken.place} of the columns is out of range", broken.expected, broken.given,
                f"change {broken.place}=",
            )  # fmt: skip

    @classmethod
    def fit(
        cls,
        rows: Iterable[Mapping[str, Any]],
        *,
        numeric: Sequence[str] = (),
        categorical: Sequence[str] = (),
        label: str | None = None,
        width: int = 64,
        seed: int = 0,
    ) -> Columns:
        """Means, deviations and categories of the training rows.

        A cell is missing where it is None, NaN or blank; statistics leave it out.

        Args:
            rows: the training split's, by column: ``frame.to_dict("records")`` of a pandas DataFrame.
            numeric: columns of numbers.
            categorical: columns of categories: strings, whole numbers or booleans.
            label: the column of the labels, which must not be among them.
            width: of a token.
            seed: of the fixed vectors.

        Raises:
            SourceError: no column or no row; a column that is unknown, given twice, missing in every row, or the
                label's; a cell that is no finite number, with its row; a column of too many categories; a width or
                seed out of range.
        """
        given = list(rows)
        names = [*numeric, *categorical]
        _check_names(names, given, label)
        statistics = {}
        for name in numeric:
            known = [number for at, row in enumerate(given) if (number := _number(name, at, row)) is not None]
            _check_any(name, known)
            statistics[name] = mean_and_deviation(known)
        seen = {}
        for name in categorical:
            found = {one for row in given if (one := category_in(row[name])) is not None}
            _check_any(name, found)
            if len(found) > MOST_CATEGORIES:
                raise _wrong(
                    f"the column {name!r} has too many categories", f"at most {MOST_CATEGORIES:,}", f"{len(found):,}",
                    "leave it out: it may be an id, or give it as numeric",
                )  # fmt: skip
            seen[name] = tuple(sorted(found))
        return cls(statistics, seen, width, seed)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns in the order of their tokens: numeric ones first."""
        return (*self.numeric, *self.categorical)

    @cached_property
    def _codes(self) -> dict[str, dict[str, int]]:
        """Column -> category -> its code; another spelling of a whole number has the same, if it is no category."""
        found = {}
        for name, known in self.categorical.items():
            codes = {one: at for at, one in enumerate(known, 2)}
            found[name] = {form: at for one, at in codes.items() for form in spellings(one)} | codes
        return found

    def knows(self, name: str, category: str) -> bool:
        """Whether the training rows have this category of a column."""
        return category in self._codes[name]

    def batch(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, Tensor]:
        """What `ColumnEncoder` is called with: `numbers` (B, N), NaN where missing, and `codes` (B, C).

        A code is 0 for a missing cell, 1 for a category that the training rows do not have.

        Raises:
            SourceError: a column is absent, or a cell is no finite number, with its row.
        """
        given = list(rows)
        _check_names(list(self.names), given, None)
        numbers = [
            [math.nan if (one := _number(name, at, row)) is None else one for name in self.numeric]
            for at, row in enumerate(given)
        ]
        codes = [
            [
                0 if (kind := category_in(row[name])) is None else self._codes[name].get(kind, 1)
                for name in self.categorical
            ]
            for row in given
        ]
        standard = torch.tensor(numbers, dtype=torch.float64).reshape(len(given), len(self.numeric))
        for at, (mean, deviation) in enumerate(self.numeric.values()):
            standard[:, at] = (standard[:, at] - mean) / deviation
        return {
            "numbers": standard.clamp(-MOST_DEVIATIONS, MOST_DEVIATIONS).float(),
            "codes": torch.tensor(codes, dtype=torch.long).reshape(len(given), len(self.categorical)),
        }

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        data = {
            "width": self.width,
            "seed": self.seed,
            "numeric": [{"name": name, "mean": one[0], "deviation": one[1]} for name, one in self.numeric.items()],
            "categorical": [{"name": name, "categories": list(one)} for name, one in self.categorical.items()],
        }
        text = json.dumps(sealed(data), indent=2) + "\n"  # escapes hold what UTF-8 cannot: half of a surrogate pair
        try:
            write_file(Path(path), lambda file: file.write_text(text, encoding="utf-8"))
        except OSError as error:
            raise _wrong(
                f"cannot write the columns: {error}", "a writable place", str(path), "choose another"
            ) from error

    @classmethod
    def load(cls, path: str | Path) -> Columns:
        """What `save` wrote.

        Raises:
            SourceError: it is absent, or not what was written.
        """
        try:
            data = json.loads(read_regular(Path(path), _MOST_BYTES).decode("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise _wrong(
                f"cannot read the columns: {error}", "a file of Columns.save", str(path), "copy it again"
            ) from error
        if broken := fault(data, _SCHEMA):
            raise _wrong(
                f"this is no file of columns: {broken.place} is wrong", broken.expected, broken.given, "copy it again"
            )
        numeric = {one["name"]: (one["mean"], one["deviation"]) for one in data["numeric"]}
        categorical = {one["name"]: tuple(one["categories"]) for one in data["categorical"]}
        names = [one["name"] for one in (*data["numeric"], *data["categorical"])]
        sets = [*categorical.values(), tuple(names)]
        many = any(len(known) > MOST_CATEGORIES for known in categorical.values())
        if data != sealed(data) or many or not names or any(len({*one}) != len(one) for one in sets):
            raise _wrong(
                "the columns are not what was saved", "the file that Columns.save wrote", str(path), "copy it again"
            )
        return cls(numeric, categorical, data["width"], data["seed"])


class ColumnEncoder(nn.Module):
    """Tokens (B, columns, width): one a column, from fixed random vectors. A source encoder for `inject`.

    A number is its standardised value times its column's vector, plus another one; a category, a missing cell and a
    category that training did not have are vectors of their own. The vectors are drawn by the names of columns and
    categories, so they are the same wherever the same `Columns` are.

    Args:
        columns: what `Columns.fit` found.

    Examples:
        >>> import torch
        >>> from mi2p_inject import inject
        >>> from mi2p_inject.sources.columns import ColumnEncoder, Columns
        >>> train = [{"age": 31, "town": "Bern"}, {"age": 47, "town": "Chur"}, {"age": None, "town": "Bern"}]
        >>> columns = Columns.fit(train, numeric=["age"], categorical=["town"], width=8)
        >>> batch = columns.batch([{"age": 39, "town": "Chur"}, {"age": "52", "town": "Olten"}])
        >>> net, x = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()), torch.randn(2, 3, 8, 8)
        >>> encoder = {"columns": ColumnEncoder(columns)}
        >>> me = inject(net, "0", source_encoder=encoder, example_inputs=x, source_example_inputs={"columns": batch})
        >>> me(x, source={"columns": batch}).shape
        torch.Size([2, 4, 6, 6])
    """

    def __init__(self, columns: Columns) -> None:
        super().__init__()
        self.columns = columns
        width, seed = columns.width, columns.seed

        def drawn(*names: str) -> list[float]:
            generator = random.Random(json.dumps([seed, *names]))  # the stream of random() never changes
            return [(2 * generator.random() - 1) * math.sqrt(3) for _ in range(width)]

        def table(rows: list[list[float]]) -> nn.Parameter:
            return nn.Parameter(torch.tensor(rows, dtype=torch.float32).reshape(-1, width), requires_grad=False)

        self.slopes, self.biases, self.missing = (
            table([drawn(name, what) for name in columns.numeric]) for what in ("slope", "bias", "missing")
        )
        rows: list[list[float]] = []
        self.starts: list[int] = []
        for name, known in columns.categorical.items():
            self.starts.append(len(rows))
            rows += [drawn(name, "missing"), drawn(name, "unseen"), *(drawn(name, "category", one) for one in known)]
        self.categories = table(rows)

    def forward(self, numbers: Tensor, codes: Tensor) -> Tensor:
        """Tokens of a batch of `Columns.batch`."""
        there = numbers.isnan().logical_not().unsqueeze(-1)
        tokens = numbers.nan_to_num().unsqueeze(-1).to(self.slopes.dtype) * self.slopes + self.biases
        starts = torch.tensor(self.starts, dtype=codes.dtype, device=codes.device)
        return torch.cat([torch.where(there, tokens, self.missing), self.categories[codes + starts]], 1)


def _check_names(names: Sequence[str], rows: Sequence[Mapping[str, Any]], label: str | None) -> None:
    if not names or not rows or isinstance(names, str):
        raise _wrong("there is nothing to read", "one column or more, and one row or more",
                     f"{len(names)} columns, {len(rows)} rows", "name columns, and give rows")  # fmt: skip
    twice = [name for name in names if list(names).count(name) > 1]
    if twice:
        raise _wrong(f"the column {twice[0]!r} is given twice", "each column once", ", ".join(names), "drop one")
    if label in names:
        raise _wrong(
            f"the column {label!r} is the label: a model that reads it learns no more", "columns without the label",
            ", ".join(names), "leave it out",
        )  # fmt: skip
    for at, row in enumerate(rows):
        for name in names:
            if name not in row:
                raise _wrong(f"row {at + 1} has no column {name!r}", f"columns {', '.join(names)}",
                             ", ".join(map(str, row))[:200], closest(name, list(map(str, row))))  # fmt: skip


def _check_any(name: str, known: Iterable[Any]) -> None:
    if not known:
        raise _wrong(f"the column {name!r} is missing in every row", "a value in some row", "none", "leave it out")


def _number(name: str, at: int, row: Mapping[str, Any]) -> float | None:
    return number_in(row[name], f"row {at + 1}: the cell of the numeric column {name!r}")


def _wrong(what: str, expected: str, given: str, fix: str) -> SourceError:
    return SourceError(what, expected=expected, given=given, fix=fix)
