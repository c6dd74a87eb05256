"""An answer for each record of a table, in the file's order; what could not be read is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from predict_commands import PROBLEMS, alone, lines, mi2p, picture, same, train
from recipes_data import write_table

from mi2p_inject.recipes.saving.saved import SavedRun


@pytest.mark.fault(
    "predict",
    "rows that are empty, or whose picture is missing or damaged",
    "an answer for each row in the file's order, with its problem",
)
def test_every_record_is_answered_in_order(both: Path, holes: Path) -> None:
    result = mi2p("predict", both, "--data", holes)
    answers = lines(result)
    assert [answer["id"] for answer in answers] == ["9", "7", "8", "1", "2", "3", "9"]
    assert [answer["problem"] for answer in answers] == PROBLEMS
    for row in (1, 4):
        assert (answers[row]["label"], answers[row]["probabilities"]) == (None, None)
    same(answers[0], alone(both, holes.parent / "a.png", "crimson"))
    same(answers[2], alone(both, holes.parent / "a.png"))
    for row in (3, 5):
        same(answers[row], alone(both, text="navy"))
    same(answers[6], answers[0])
    for words in ("2 of 7 records have no input", "such as 7, 2", "2 missing file, 1 damaged", "--image-root"):
        assert words in result.stderr
    assert "note:" not in result.stdout


@pytest.mark.parametrize("model", ["vision", "text"])
def test_what_the_model_does_not_read_is_no_input(tmp_path: Path, holes: Path, model: str) -> None:
    run = train(write_table(tmp_path / "data"), tmp_path / "run", model=model)
    answers = lines(mi2p("predict", run, "--data", holes))
    given = {"vision": [0, 2, 6], "text": [0, 3, 5, 6]}[model]
    assert [row for row, answer in enumerate(answers) if answer["label"] is not None] == given
    assert [row for row, answer in enumerate(answers) if answer["problem"] is None] == given
    (tmp_path / "other.csv").write_text({"vision": "text\nx\n", "text": "image\na.png\n"}[model])
    assert "nothing to read" in mi2p("predict", run, "--data", tmp_path / "other.csv", code=1).stderr


@pytest.mark.parametrize(("model", "given", "words"), [
    ("vision", ("--text", "navy"), "model 'vision' reads no texts: the text was left out"),
    ("text", ("--image", "a.png"), "model 'text' reads no images: the image was left out"),
    ("text", (), "the model reads the first 6 of the text's 40 words"),
])  # fmt: skip
@pytest.mark.fault("predict", "a modality that the model does not read, a text read in part", "a note says so")
def test_what_of_a_sample_is_not_read_is_said(
    holes: Path, tmp_path: Path, model: str, given: tuple[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(holes.parent)
    run = train(write_table(tmp_path / "data"), tmp_path / "run", model=model, max_length=8, max_steps=1)
    own = ("--image", "a.png") if model == "vision" else ("--text", "pear " * 40 if not given else "pear")
    built, build = list[SavedRun](), SavedRun.model
    monkeypatch.setattr(SavedRun, "model", lambda self: built.append(self) or build(self))
    result = mi2p("predict", run, *own, *given)
    assert len(built) == 1  # the notes take the model that answered
    assert words in result.stderr
    assert "note:" not in result.stdout


@pytest.mark.parametrize("cells", ["2024-05", "train", "test", "", "purple|green"])
@pytest.mark.fault("predict", "label and split columns of a table to predict", "not read")
def test_labels_and_splits_are_not_read(both: Path, tmp_path: Path, cells: str) -> None:
    rows = "".join(f"word {number},{one},{cells},{cells}\n" for number, one in enumerate((cells, "dev", "test", cells)))
    (tmp_path / "new.csv").write_text("text,split,label,group\n" + rows)
    answers = lines(mi2p("predict", both, "--data", tmp_path / "new.csv"))
    assert [answer["id"] for answer in answers] == ["1", "2", "3", "4"]
    same(answers[1], alone(both, text="word 1"))


def test_label_cells_of_any_type(both: Path, tmp_path: Path) -> None:
    rows = [{"text": "a", "label": {"x": 1}}, {"text": "b", "split": ["c"], "group": [1]}, {"text": "c"}]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    mi2p("predict", both, "--data", tmp_path / "new.jsonl", "--out", tmp_path / "out.jsonl")
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [{name: one[name] for name in row} for row, one in zip(rows, found, strict=True)] == rows


def test_columns_of_the_training_that_are_not_there(tmp_path: Path) -> None:
    """Its labels, splits, groups and ids need not be in a new table."""
    table = write_table(tmp_path / "data")
    head, *rows = table.read_text().splitlines()
    named = "photo,caption,class,fold,key,kind"
    table.write_text("\n".join([named, *(f"{row},{number},{number}" for number, row in enumerate(rows))]) + "\n")
    columns = {"image": "photo", "text": "caption", "label": "class", "split": "fold", "id": "key", "group": "kind"}
    run = train(table, tmp_path / "run", model="text", **{f"{name}_col": one for name, one in columns.items()})
    (tmp_path / "new.csv").write_text("photo,caption\n,x\n,y\n")
    assert [answer["id"] for answer in lines(mi2p("predict", run, "--data", tmp_path / "new.csv"))] == ["1", "2"]
    assert head != named


def test_a_flat_folder_of_pictures(both: Path, tmp_path: Path) -> None:
    for name, colour in (("b/2.png", 0), ("a.png", 1), ("c.png", 2)):
        picture(tmp_path / name, colour)
    (tmp_path / "b" / "1.txt").write_text("alone")
    (tmp_path / "c.txt").write_text("navy")
    (tmp_path / "a.png.txt").write_text("crimson", encoding="utf-32")
    answers = lines(mi2p("predict", both, "--data", tmp_path))
    assert [answer["id"] for answer in answers] == ["a.png", "b/1.txt", "b/2.png", "c.png"]
    same(answers[0], alone(both, tmp_path / "a.png", "crimson"))
    same(answers[1], alone(both, text="alone"))
    same(answers[3], alone(both, tmp_path / "c.png", "navy"))


def test_texts_in_another_encoding_are_a_problem_of_their_record(both: Path, tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 1)
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("größere", encoding="cp1252")
    result = mi2p("predict", both, "--data", tmp_path)
    first, second = lines(result)
    same(first, alone(both, tmp_path / "a.png"))
    unread = "no text, a text file that cannot be read as UTF-8"
    assert (first["problem"], second["problem"]) == (unread, f"no input: no image, {unread}")
    assert "2 of 2 records have a text file that cannot be read as UTF-8 (such as a.png, b.txt)" in result.stderr


def test_more_records_than_a_batch(both: Path, tmp_path: Path) -> None:
    texts = [f"{'navy' if number % 3 else ''} {'x' * (number % 2) * 30}".strip() for number in range(150)]
    (tmp_path / "new.jsonl").write_text(
        "".join(json.dumps({"text": text, "n": n}) + "\n" for n, text in enumerate(texts))
    )
    found = {}
    for size in (7, 64):
        mi2p("predict", both, "--data", tmp_path / "new.jsonl", "--set", f"eval_batch_size={size}",
             "--out", tmp_path / f"{size}.jsonl")  # fmt: skip
        found[size] = [json.loads(line) for line in (tmp_path / f"{size}.jsonl").read_text().splitlines()]
        assert [one["n"] for one in found[size]] == list(range(150))
    for text, one, other in zip(texts, found[7], found[64], strict=True):
        assert (one["predicted_label"] is None) == (text == "")
        assert one["predicted_label"] == other["predicted_label"]
        if text:
            assert one["probabilities"] == pytest.approx(other["probabilities"], abs=2e-5)


def test_an_answer_that_is_no_number_is_an_error(both: Path, holes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights too large for the precision, say; it was the first class, with a probability that is no number."""
    build = SavedRun.model

    def ruined(run: SavedRun) -> object:
        model, encoders = build(run)
        next(model.parameters()).data.fill_(float("nan"))
        return model, encoders

    monkeypatch.setattr(SavedRun, "model", ruined)
    result = mi2p("predict", both, "--data", holes, code=1)
    assert "the answers to 5 of 5 samples are no numbers" in result.stderr
    assert "no numbers" in mi2p("predict", both, "--image", holes.parent / "a.png", code=1).stderr
