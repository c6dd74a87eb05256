"""Names of classes, columns and files are anybody's words: in reports, cards, pages and on the screen they stay words.

The run has columns too, so this is also where it is seen that reports, cards and figures show them.
"""

from __future__ import annotations

import ast
import io
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from mi2p_inject.core.errors import SourceError
from mi2p_inject.recipes import fit
from mi2p_inject.recipes.cli.app import app
from mi2p_inject.recipes.evaluation.evaluate import predict_one
from mi2p_inject.recipes.experiments.report import show
from mi2p_inject.recipes.saving.card import card_of

LABELS = ("a|b <script>alert(1)</script>", "![x](http://evil/p.png)\n## c")
GRAMS, TOWN = "price [/kg]", "town `|<b>"


def rows() -> list[dict[str, Any]]:
    return [
        {
            "text": f"<img src=x onerror=alert(2)> {n}",
            "image": f"{n % 5}.png",
            "label": LABELS[n % 2],
            GRAMS: None if n % 9 == 0 else 20 * n,
            TOWN: ["1", "2", None][n % 3],
        }
        for n in range(40)
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from PIL import Image

    folder = tmp_path_factory.mktemp("words")
    given = rows()
    for n in range(5):
        Image.new("RGB", (32, 32), (40 * n, 90, 30)).save(folder / f"{n}.png")
    for row in given:
        row["image"] = str(folder / row["image"])
    tiny: dict[str, Any] = {"vision": "tiny:resnet", "text": "tiny:bert", "image_size": 32, "max_steps": 1}
    tiny["problem_type"] = "single-label"  # a | parts no labels
    read = {"numeric_cols": [GRAMS], "categorical_cols": [TOWN]}
    return fit(given, "me-vision", out=folder / "run [/a]", **tiny, **read)  # prints, in a terminal's way


def folder_of(run: Any) -> Path:
    """Where its pictures are."""
    return Path(run.path.parents[1])


def mi2p(*arguments: object) -> str:
    shown = CliRunner().invoke(app, list(map(str, arguments)))
    assert shown.exit_code == 0, shown.output
    return shown.output


def cells_of_tables(text: str) -> set[int]:
    """The numbers of cells in the lines of each table, as a reader of Markdown counts them."""
    found = set()
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(counts) == 1, table
        found |= counts
    return found


@pytest.mark.parametrize("kind", ["report", "card"])
def test_markdown_holds_words_only(run: Any, kind: str) -> None:
    text = mi2p("report", run.path) if kind == "report" else (run.path / "README.md").read_text(encoding="utf-8")
    body = text.split("\n---\n", 1)[-1].replace("<!-- Written by mi2p_inject", "")
    body = re.sub(r"^```.*?^```|`[^`\n]*`", "", body, flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"(?<!\\)<[A-Za-z/!?]", body)  # no tag
    assert not re.search(r"(?<!\\)\]\((?!https://github.com/mi2p-inject)", body)  # no link, no picture of another place
    assert "\n## c" not in body
    assert cells_of_tables(body)
    assert "columns price [/kg]" in body  # that it reads columns is said


def test_the_cards_metadata_and_use_can_be_read(run: Any) -> None:
    """What the card says to run answers: a run with columns needs them."""
    text = (run.path / "README.md").read_text(encoding="utf-8")
    assert yaml.safe_load(text.split("---\n")[1])["library_name"] == "mi2p_inject"
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code is not None
    call = re.search(r"run\.predict\((\[.*\])\), run", code[1])
    assert call is not None
    (row,) = ast.literal_eval(call[1])
    assert set(row) == {"image", "text", GRAMS, TOWN}
    assert len(run.predict([row])) == 1


def test_a_card_with_quotes_in_names(run: Any) -> None:
    from mi2p_inject.recipes.config import with_options

    config = with_options(run.saved.config, {"image_col": 'the "picture"'})
    call = re.search(r"run\.predict\((\[.*\])\), run", card_of(config, run.numbers))
    assert call is not None
    assert 'the "picture"' in ast.literal_eval(call[1])[0]


def test_the_page_holds_words_only_and_each_mistakes_cells(run: Any) -> None:
    mi2p("report", run.path, "--html")
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"<script|<img src=x|<b>`|http://evil/p.png\)<", page.replace("&lt;", ""))
    cells = re.findall(r"price \[/kg\] <b>(\d+|missing)</b> · town `\|&lt;b&gt; <b>(1|2|missing)</b>", page)
    assert cells
    assert "columns: what is lost where the cell is missing" in page
    assert re.search(r'<p class="soft">[^<]*columns price \[/kg\], town', page)


def test_a_tables_names_are_no_markup_of_the_screen() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    from test_recipes_report import report

    numbers = report({"accuracy": [0.1]}, {"accuracy": (0.05, 0.15)}, [0])
    numbers["experiments"]["price [/kg]"] = numbers["experiments"].pop("alone") | {"title": "[/x]"}
    numbers["experiments"]["expanded"]["gain"] = {"price [/kg]": numbers["experiments"]["expanded"]["gain"]["alone"]}
    show(numbers, console)
    assert "price [/kg]" in console.export_text()


def test_an_explanation_says_which_cells_it_read(run: Any) -> None:
    picture = rows()[0]["image"]
    found = run.explain(folder_of(run) / picture, "a thing", columns={TOWN: "Olten"})
    assert dict(found.cells) == {GRAMS: "", TOWN: "Olten"}
    assert found.unseen == (TOWN,)
    drawn = [label.get_text() for axes in found.figure().axes for label in axes.get_yticklabels()]
    assert {f"{GRAMS}: missing", f"{TOWN}: Olten (unseen)"} <= set(drawn)


def test_what_training_had_nothing_like_is_said(run: Any, tmp_path: Path) -> None:
    new = rows()[:4]
    for row, town in zip(new, ("Olten", "1.0", "1", "Thun"), strict=True):
        row |= {TOWN: town, "image": str(folder_of(run) / row["image"])}
    new[3][GRAMS] = 1e9
    answers = run._asked(new, {})
    problems = [answer["problem"] for answer in answers]
    assert problems[1:3] == [None, None]  # pandas writes 1 as 1.0 where the column has missing cells
    assert problems[0] == f"column {TOWN!r}: a category that training did not have: Olten"
    assert "1000000000" in problems[3]
    assert "Thun" in problems[3]
    notes = [note for note in answers.notes if "column" in note]
    assert [note.partition(" records")[0] for note in notes] == ["2 of 4", "1 of 4"]
    assert "(such as Olten, Thun)" in notes[0]


def test_the_app_takes_cells(run: Any) -> None:
    """Each column has an input; the answer is that of the cells, beside the one without them."""
    from mi2p_inject.recipes.app.page import build_page
    from mi2p_inject.recipes.app.reply import reply_to

    picture = folder_of(run) / rows()[0]["image"]
    page = build_page(run).config
    labels = {one["props"].get("label"): one for one in page["components"]}
    assert labels[GRAMS]["type"] == "textbox"  # an empty input of Gradio's kind for numbers gives a zero
    assert [name for name, _ in labels[TOWN]["props"]["choices"]] == ["1", "2"]
    about = next(one["props"]["value"] for one in page["components"] if one["type"] == "markdown")
    assert "columns price [/kg]" in about
    reply = reply_to(run, picture, "a thing", {GRAMS: 80, TOWN: " "})
    assert [one.of for one in reply.answers] == [
        "picture and text", "without the text", "without the picture", "without the columns",
    ]  # fmt: skip
    expected = predict_one(run.saved, picture, "a thing", {GRAMS: 80})
    assert reply.answers[0].probabilities == expected["probabilities"]
    assert reply.answers[3].probabilities == predict_one(run.saved, picture, "a thing")["probabilities"]
    with pytest.raises(SourceError, match="is no finite number"):
        reply_to(run, picture, "a thing", {GRAMS: "many"})
    assert any("Olten" in note for note in reply_to(run, None, "a", {TOWN: "Olten"}).notes)
    assert "No column was given: this is the model's answer without them." in reply_to(run, None, "a", {}).notes


def test_one_samples_cells_are_looked_at_too(run: Any) -> None:
    sample = ["predict", str(run.path), "--text", "a thing", "--column", f"{TOWN}=Olten"]
    shown = CliRunner().invoke(app, sample)
    assert shown.exit_code == 0
    assert f"note: column {TOWN!r}: a category that training did not have: Olten" in shown.stderr
    twice = CliRunner().invoke(app, [*sample, "--column", f"{TOWN}=1"])
    assert twice.exit_code == 1
    assert "is given twice" in twice.stderr
