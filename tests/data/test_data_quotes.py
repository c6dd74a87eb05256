"""Quotes in CSV and TSV files that open or close no field: the row as it stands, or an error that names the line."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from data_files import Load, draw, load, note
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mi2p_inject.recipes.data.tables.delimited import LONE_QUOTE
from mi2p_inject.recipes.data.tables.read import table_rows
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["load"]

Rows = list[tuple[str, str, str]]
PLAIN: Rows = [(f"img/{i}.png", f"word {i}", f"c{i % 3}") for i in range(30)]
MARKS = {".csv": ",", ".tsv": "\t"}


def changed(where: dict[tuple[int, int], str]) -> Rows:
    """The plain rows with other cells."""
    rows = [list(row) for row in PLAIN]
    for (row, column), cell in where.items():
        rows[row][column] = cell
    return [(a, b, c) for a, b, c in rows]


def written(folder: Path, rows: Rows, ending: str = ".csv", end: str = "\n") -> Path:
    """A table whose cells stand as they are."""
    path = folder / f"a{ending}"
    path.write_bytes(end.join(MARKS[ending].join(row) for row in [("image", "text", "label"), *rows, ("",)]).encode())
    return path


def read(path: Path) -> tuple[Rows, list[int]]:
    """The rows, and the lines of those with a quote that stands for itself."""
    found = list(table_rows(path))
    rows = [(fields["image"], fields["text"], fields["label"]) for _, fields, _ in found]
    return rows, [line for line, _, mark in found if mark == LONE_QUOTE]


@pytest.mark.parametrize("ending", MARKS)
@pytest.mark.parametrize("text", ['"say "no" twice"', '"say \\"no\\""', '"word 4'])
@pytest.mark.fault("tables", "a lone quote in a row whose other cells are quoted", "those cells without their quotes")
def test_the_cells_beside_a_lone_quote_lose_theirs(text: str, ending: str, tmp_path: Path) -> None:
    quoted: Rows = [(f'"{image}"', f'"{text}"', f'"{label}"') for image, text, label in PLAIN]
    quoted[4] = ('"img/4.png"', text, '"the ""best"""')
    rows, marked = read(written(tmp_path, quoted, ending))
    assert (rows[4], marked) == (("img/4.png", text, 'the "best"'), [6])
    assert rows[:4] + rows[5:] == PLAIN[:4] + PLAIN[5:]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("ending", MARKS)
@pytest.mark.parametrize(
    "where",
    [
        {(4, 1): '"word 4'},
        {(4, 1): '"word 4', (8, 1): '"word 8'},
        {(4, 1): '"word 4', (8, 1): 'word 8"'},  # these two would join five rows to one that looks right
        {(4, 1): '"word 4', (5, 1): 'word 5"'},
        {(29, 1): '"word 29'},
        {(4, 0): '"img/4.png'},
        {(4, 1): '"a" word'},
        {(4, 1): '5" pipe', (8, 1): '"word 8'},
        {(4, 1): '"said \\"no\\""'},
    ],
)
@pytest.mark.fault(
    "tables", "a text of a CSV or TSV that starts or ends with a lone quote", "the row as it stands; none is swallowed"
)
def test_rows_as_they_stand(where: dict[tuple[int, int], str], ending: str, end: str, tmp_path: Path) -> None:
    rows, marked = read(written(tmp_path, changed(where), ending, end))
    assert rows == changed(where)
    assert set(marked) <= {row + 2 for row, _ in where}
    assert marked


@pytest.mark.fault("tables", "lone quotes", "a note counts them")
def test_are_counted(tmp_path: Path, load: Load) -> None:
    for image, _, _ in PLAIN:
        draw(tmp_path / image, int(image[4:-4]))
    samples = load(written(tmp_path, changed({(4, 1): '"word 4', (8, 1): 'word 8"'})))
    assert note(samples, "quote") == f"1 rows with {LONE_QUOTE} (such as 5)"
    assert '"word 4' in {row["text"] for split in samples.splits.values() for row in split}
    assert sum(map(len, samples.splits.values())) == 30


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text(alphabet='ab ,"\n\r\té', max_size=12), min_size=12, max_size=12),
    ending=st.sampled_from([".csv", ".tsv"]),
)
def test_what_a_csv_writer_writes_is_read(
    texts: list[str], ending: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = [(f"img/{i}.png", text, f"c{i % 2}") for i, text in enumerate([*texts, *["plain"] * 8])]
    memory = io.StringIO(newline="")
    csv.writer(memory, delimiter=MARKS[ending]).writerows([("image", "text", "label"), *rows])
    path = tmp_path_factory.mktemp("csv") / f"a{ending}"
    path.write_bytes(memory.getvalue().encode())
    assert read(path) == (rows, [])


@settings(max_examples=60, deadline=None)
@example(texts=[*[""] * 10, '"', '"'], ending=".csv")  # a lone quote is no other value of a column
@given(
    texts=st.lists(st.text(alphabet='ab "', max_size=8), min_size=12, max_size=12),
    ending=st.sampled_from([".csv", ".tsv"]),
)
@pytest.mark.fault("tables", "any texts with quotes", "every row is read, or an error names the line")
def test_nothing_is_swallowed(texts: list[str], ending: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Texts that stand as they are: each row is there, with its text or its unquoted text, or an error names a line."""
    rows = [(f"img/{i}.png", text, f"c{i % 2}") for i, text in enumerate([*texts, *["plain"] * 8])]
    path = written(tmp_path_factory.mktemp("csv"), rows, ending)
    try:
        found, _ = read(path)
    except RecipeError as error:
        if ", line " not in str(error):
            raise
        return
    assert [(image, label) for image, _, label in found] == [(image, label) for image, _, label in rows]
    for (_, text, _), (_, stood, _) in zip(found, rows, strict=True):
        assert text in (stood, next(csv.reader([f"x,{stood}"]))[1])


class TestTextsOfSeveralLines:
    """Written by a csv writer, they stay one row, also where their lines look like rows."""

    def test_with_separators(self, tmp_path: Path) -> None:
        text = '"hello, world\nfoo, bar"'
        rows, marked = read(written(tmp_path, changed({(4, 1): text})))
        assert rows == changed({(4, 1): text[1:-1]})
        assert not marked

    def test_beside_a_quote_that_stands_for_itself(self, tmp_path: Path) -> None:
        path = written(tmp_path, changed({(4, 1): '"one\n\ntwo"', (8, 1): '"word 8'}))
        with pytest.raises(RecipeError, match=r"line 12: a quote opens here and closes nowhere[\s\S]*double quotes"):
            read(path)

    @pytest.mark.fault(
        "tables", "a quoted text of several lines that could also be several rows", "RecipeError names the line"
    )
    def test_what_is_ambiguous_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text('name,text\nq,"hello\nworld, x"\nw,b\nz,c\n')
        with pytest.raises(RecipeError, match=r"line 2: a quote opens here and closes 1 lines below[\s\S]*jsonl"):
            list(table_rows(tmp_path / "a.csv"))

    def test_a_single_column(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text('text\n"a\nb"\nc\n')
        assert [fields["text"] for _, fields, _ in table_rows(tmp_path / "a.csv")] == ["a\nb", "c"]

    def test_a_column_name_of_two_lines(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text('"the\ntext",label\na,b\n')
        assert [fields for _, fields, _ in table_rows(tmp_path / "a.csv")] == [{"the\ntext": "a", "label": "b"}]
