"""What the page says for every kind of run; without a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import complains
from recipes_data import write_table
from training_runs import train

from mi2p_inject.recipes.api import Run, load_run
from mi2p_inject.recipes.app.render import answer_html, error_html
from mi2p_inject.recipes.app.reply import Answer, Reply, is_expanded, one_line, reply_to
from mi2p_inject.recipes.data.images import ImageError
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.evaluation.evaluate import predict_one

PICTURE = Path(__file__).parents[2] / "golden" / "run-3" / "picture.png"
TEXT = "crimson thing number 3"
BOTH, NO_TEXT, NO_PICTURE = "picture and text", "without the text", "without the picture"
#: kind -> settings, what its answers are of, whether something is explained
KINDS: dict[str, tuple[dict[str, Any], list[str], bool]] = {
    "vision": ({"model": "vision"}, ["picture"], False),
    "text": ({"model": "text"}, ["text"], False),
    "late-fusion": ({"model": "late-fusion", "fusion": "concat"}, [BOTH, NO_TEXT, NO_PICTURE], False),
    "me-text": ({"model": "me-text", "text": "tiny:bert"}, [BOTH, NO_TEXT, NO_PICTURE], True),
    "mmbt": ({"model": "mmbt", "vision": "tiny:resnet", "text": "tiny:bert"}, [BOTH, NO_TEXT, NO_PICTURE], False),
    "several labels": ({"model": "me-vision", "several": True}, [BOTH, NO_TEXT, NO_PICTURE], True),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, list[str], bool]:
    folder = tmp_path_factory.mktemp("run")
    settings, asked, explained = KINDS[request.param]
    settings = dict(settings)
    table = write_table(folder, several=settings.pop("several", False))
    train(table, folder / "run", max_steps=1, keep_weights=True, reading_check=False, **settings)
    return load_run(folder / "run"), asked, explained


def test_every_kind_of_run_answers(kind: tuple[Run, list[str], bool]) -> None:
    run, asked, explained = kind
    reply = reply_to(run, PICTURE, TEXT)
    assert [answer.of for answer in reply.answers] == asked
    assert is_expanded(run) == explained
    given = {BOTH: (PICTURE, TEXT), NO_TEXT: (PICTURE, None), NO_PICTURE: (None, TEXT)}
    for answer in reply.answers:
        image, text = given.get(answer.of, (PICTURE, TEXT))
        expected = predict_one(run.saved, image, text)
        assert answer.probabilities == expected["probabilities"]
        assert answer.labels == tuple(expected["labels"] if "labels" in expected else [expected["label"]])
        assert reply.thresholds == expected.get("thresholds", {})
    page = answer_html(reply)
    assert all(f">{name}</th>" in page for name in run.classes)
    assert page.count('class="mark"') == (len(run.classes) * len(asked) if reply.thresholds else 0)


def test_what_is_not_read_has_no_input_and_a_line(kind: tuple[Run, list[str], bool]) -> None:
    run, _, explained = kind
    from mi2p_inject.recipes.app.page import build_page  # gradio takes seconds, which whoever collects need not wait

    parts = {one["props"].get("elem_id"): one["props"] for one in build_page(run).config["components"]}
    reads = run.saved.config.model.system.modalities
    assert parts["picture"]["visible"] is ("image" in reads)
    assert parts["text"]["visible"] is ("text" in reads)
    lines = parts.get("not-there", {}).get("value", "")
    assert ("does not read a picture" in lines) is ("image" not in reads)
    assert ("does not read a text" in lines) is ("text" not in reads)
    assert ("no explanation" in lines) is not explained


def test_one_of_both_is_enough_and_said(kind: tuple[Run, list[str], bool]) -> None:
    run, asked, _ = kind
    if BOTH not in asked:
        with complains(RecipeError, "nothing to read", "give a "):
            reply_to(run, PICTURE if asked == ["text"] else None, None)
        return
    reply = reply_to(run, None, f" {TEXT} ")
    assert [answer.of for answer in reply.answers] == ["text"]
    assert any("No picture was given" in note for note in reply.notes)
    assert reply_to(run, PICTURE, "  ").answers[0].of == "picture"


def test_a_text_that_is_not_read_to_its_end_is_said(kind: tuple[Run, list[str], bool]) -> None:
    run, asked, _ = kind
    if asked == ["picture"]:
        assert not reply_to(run, PICTURE, "thing " * 2000).notes
        return
    assert any("of the text's 2000 words" in note for note in reply_to(run, None, "thing " * 2000).notes)
    with complains(RecipeError, "30,000 characters", "20,000"):
        reply_to(run, None, "a" * 30_000)


def test_many_classes_are_folded_and_names_are_escaped() -> None:
    names = [f"<class {number}>" for number in range(14)]
    shares = {name: number / 100 for number, name in enumerate(names)}
    page = answer_html(Reply((Answer("text", ("<class 13>",), shares),), {}, ("a < b",)))
    assert "4 more classes" in page
    assert "<class" not in page
    assert "a &lt; b" in page
    assert page.index("class 13") < page.index("class 12") < page.index("4 more") < page.index("class 0&gt;")
    assert "&lt;b&gt;" in error_html("<b>")


def test_an_error_is_one_line_with_the_name_of_the_file_and_the_fix() -> None:
    error = ImageError("no image", "/tmp/uploads/1234/cat.jpg", "read are JPEG, PNG")
    said = one_line(error, "/tmp/uploads/1234/cat.jpg")
    assert said.startswith("bad image cat.jpg: no image")
    assert "give a JPEG" in said
    assert "uploads" not in said
    assert "\n" not in one_line(RecipeError("what", expected="this", given="that", fix="do so"))
