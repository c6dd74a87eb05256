"""`mi2p report RUN --html`: one file, complete, self-contained, and with the right numbers."""

from __future__ import annotations

import base64
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recipes_data import write_table
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from training_runs import train
from typer.testing import CliRunner

from mi2p_inject.recipes.cli.app import app
from mi2p_inject.recipes.data import load_data
from mi2p_inject.recipes.evaluation.page.classes import class_scores, confusion
from mi2p_inject.recipes.evaluation.page.figures import calibration_figure
from mi2p_inject.recipes.evaluation.page.worst import worst_mistakes
from mi2p_inject.recipes.evaluation.page.write import html_page
from mi2p_inject.recipes.evaluation.run_report import run_markdown
from mi2p_inject.recipes.explain.result import BranchExplanation, Explanation
from mi2p_inject.recipes.metrics.resampling import Interval
from mi2p_inject.recipes.saving.saved import load_run
from mi2p_inject.recipes.tasks import MultiLabel, SingleLabel

SHORT = {"epochs": 2, "max_steps": 8}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    train(write_table(folder / "data"), folder / "run", model="me-vision", epochs=1, max_steps=1)  # makes mistakes
    return folder / "run"


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    train(write_table(folder / "data", several=True), folder / "run", model="me-text", **SHORT)
    return folder / "run"


class Links(HTMLParser):
    """Every address in a page, and whether each tag is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("kind", ["run", "several"])
def test_nothing_is_fetched_and_every_part_is_there(kind: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(kind)
    shown = CliRunner().invoke(app, ["report", str(folder), "--html"])
    assert shown.exit_code == 0, shown.output
    page = (folder / "report.html").read_text(encoding="utf-8")
    links = Links()
    links.feed(page)
    assert links.open == []
    assert links.found
    assert all(link.startswith("data:image/") for link in links.found)
    parts = ["Scores", "Training", "Worst mistakes on test", "Classes on test", "Calibration", "Data", "Versions"]
    parts += (
        ["Confusion", "the probability of the answer"] if kind == "run" else ["threshold", "the probability of a label"]
    )
    for part in parts:
        assert part in page, part
    assert hash(page) == hash(html_page(load_run(folder)))  # no time, no random name


def test_the_numbers_are_those_of_the_run(run: Path) -> None:
    saved = load_run(run)
    page = html_page(saved)
    for name in saved.task.metrics:
        one = saved.numbers["test"][name]
        assert f"{100 * one['value']:.1f} [{100 * one['low']:.1f}, {100 * one['high']:.1f}]" in page


def test_classes_are_scikit_learns(run: Path) -> None:
    random = np.random.default_rng(0)
    true, said = random.integers(0, 3, 50), random.integers(0, 3, 50)
    found = class_scores(SingleLabel(("a", "b", "c")), true, said, np.arange(50), seed=0)
    expected = precision_recall_fscore_support(true, said, labels=[0, 1, 2], zero_division=0)
    for one, *theirs in zip(found, *expected[:3], strict=True):
        for mine, value in zip((one.precision, one.recall, one.f1), theirs, strict=True):
            assert mine is not None
            assert mine.value == pytest.approx(value)
            assert mine.low <= mine.value <= mine.high
    assert [one.support for one in found] == expected[3].tolist()
    assert (confusion(true, said, ("a", "b", "c")) == confusion_matrix(true, said, labels=[0, 1, 2])).all()
    flags = random.integers(0, 2, (50, 3)), random.integers(0, 2, (50, 3))
    of_several = class_scores(MultiLabel(("a", "b", "c")), *flags, np.arange(50), seed=0)
    expected = precision_recall_fscore_support(*flags, zero_division=0)
    assert [one.f1 and one.f1.value for one in of_several] == pytest.approx(expected[2])


def test_resamples_without_a_class_say_nothing_of_it() -> None:
    """A class of few groups is in no sample of many resamples: its recall there is no 0."""
    true = np.array([0, 1, 2] + [1] * 40)
    said = np.where(true == 2, 1, true)
    first, second, third = class_scores(SingleLabel(("a", "b", "c")), true, said, np.arange(43), seed=0)
    for score in (first.precision, first.recall, first.f1, second.recall):
        assert score == Interval(1.0, 1.0, 1.0)
    assert third.precision is None  # never answered
    assert third.recall == third.f1 == Interval(0.0, 0.0, 0.0)


def test_a_class_that_a_split_neither_has_nor_is_answered_with_has_no_score(tmp_path: Path) -> None:
    table = write_table(tmp_path / "data")
    with table.open("a") as file:
        file.write(",one of its kind,rare,train\n")
    train(table, tmp_path / "run", model="text", **SHORT)
    saved = load_run(tmp_path / "run")
    assert set(saved.numbers["test"]["f1_of_classes"]) == set(saved.task.classes) - {"rare"}
    assert "| rare | \N{EN DASH} (no samples, no answers) |" in run_markdown(saved)
    scores = re.search(r">rare</td>\s*<td[^>]*>0</td><td[^>]*>0</td>\s*(.*)", html_page(saved))
    assert scores is not None
    assert scores[1].count("&ndash;</td>") == 3


def test_a_card_of_several_labels_does_not_say_that_one_is_answered(several: Path) -> None:
    card = (several / "README.md").read_text(encoding="utf-8")
    assert "- It knows its classes alone" in card
    assert "one of its classes" not in card


def test_the_worst_mistakes_come_first(tmp_path: Path) -> None:
    samples = load_data(write_table(tmp_path))
    count = len(samples.splits["test"])
    true = samples.targets("test")
    probabilities = np.full((count, 3), 0.1)
    decided = (true + 1) % 3
    decided[0] = true[0]  # the only right one
    probabilities[np.arange(count), decided] = np.linspace(0.4, 0.9, count)
    found = worst_mistakes(SingleLabel(samples.classes), samples, "test", true, decided, probabilities, count=5)
    assert [one.probability for one in found] == pytest.approx(np.linspace(0.4, 0.9, count)[::-1][:5])
    rows = samples.splits["test"]
    for place, one in enumerate(found):
        row = rows[count - 1 - place]
        assert (one.id, one.text) == (row["id"], row["text"] or "")
        assert bool(one.picture) == (row["image"] is not None)
        assert one.true == samples.classes[true[count - 1 - place]] != one.answer


def test_the_worst_mistakes_are_explained(tmp_path: Path) -> None:
    """The first six of those with a picture and a text, each about the class that was wrongly named."""
    samples = load_data(write_table(tmp_path))
    rows, true = samples.splits["test"], samples.targets("test")
    count, asked = len(rows), []
    decided = (true + 1) % 3
    probabilities = np.full((count, 3), 0.1)
    probabilities[np.arange(count), decided] = np.linspace(0.9, 0.4, count)
    grey = np.full((8, 8, 3), 128, dtype=np.uint8)

    def explain(image: Any, text: str, target: str, row: Any) -> Explanation:
        asked.append((text, target))
        none = dict.fromkeys(("site", "spread", "keys", "word_attention", "word_maps", "evidence_map", "place_loss"))
        words = tuple(text.split())
        loss = np.linspace(-2, 4, len(words))
        branch = BranchExplanation(
            **{**none, "evidence_map": np.eye(3)},  # type: ignore[arg-type]
            modality="image",
            unit="mi2p",
            rest_attention=0.0,
            word_evidence=None,
            rest_evidence=0.0,
            word_loss=loss,
        )
        return Explanation(grey, words, target, {target: 1.0}, {}, (branch,))

    task = SingleLabel(samples.classes)
    found = worst_mistakes(task, samples, "test", true, decided, probabilities, explain=explain)
    both = [k for k in range(count) if rows[k]["image"] is not None and rows[k]["text"]][:6]
    assert asked == [(rows[k]["text"], samples.classes[decided[k]]) for k in both]
    reasons = {one.id: one.reason for one in found if one.reason is not None}
    assert list(reasons) == [rows[k]["id"] for k in both]
    first = reasons[rows[both[0]]["id"]]
    assert (first.of, first.words[0][1], first.words[-1][1]) == (samples.classes[decided[both[0]]], -0.5, 1.0)
    assert first.picture.startswith("data:image/jpeg")
    assert len(first.captions) == 2


@pytest.mark.parametrize("kind", ["run", "several"])
def test_the_page_shows_the_explanations(kind: str, request: pytest.FixtureRequest) -> None:
    page = html_page(load_run(request.getfixturevalue(kind)))
    assert 1 <= page.count('<div class="reason">') <= 6
    assert ('<span class="word"' in page) == (kind == "run")  # a picture model reads the words
    assert "what the text model loses where a window is blurred" in page or kind == "run"
    assert len(page) < 1_000_000


def test_it_can_be_made_without_the_data(run: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    table = Path(load_run(run).config.data.data)
    before = table.read_text()
    try:
        table.write_text(before.replace("crimson", "purple", 1))
        assert "The data have changed since the training." in html_page(load_run(copied))
        table.unlink()
        assert "The data cannot be read any more" in html_page(load_run(copied))
    finally:
        table.write_text(before)


def test_texts_are_no_markup(tmp_path: Path) -> None:
    table = write_table(tmp_path / "data")
    table.write_text(table.read_text().replace("crimson", "<script>alert(1)</script>"))
    train(table, tmp_path / "run", model="text", **SHORT)
    page = html_page(load_run(tmp_path / "run"))
    assert "<script" not in page
    assert "reason" not in page.split("</style>")[1]  # nothing is expanded


def test_one_report_at_a_time(run: Path) -> None:
    shown = CliRunner().invoke(app, ["report", str(run), "--html", "--json"])
    assert shown.exit_code != 0
    assert re.search("two reports", shown.output + shown.stderr)


def test_the_calibration_figure_has_the_bins_of_the_calibration_error() -> None:
    confidence = np.linspace(0.001, 1, 600)
    page = calibration_figure(confidence, np.ones(600, dtype=bool), single=True)
    drawn = base64.b64decode(page.partition("base64,")[2].partition('"')[0]).decode()
    points = drawn[drawn.index('<g id="PathCollection_1">') :]
    assert points[: points.index("</g>")].count("<path ") == 15
