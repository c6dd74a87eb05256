"""The file of answers: own columns, thresholds, what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from predict_commands import PROBLEMS, lines, mi2p, picture, train
from recipes_data import CLASSES, write_table


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    if path.suffix == ".parquet":
        import pyarrow.parquet

        found: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
        return found
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_answers_in_the_home_folder(both: Path, holes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell does not expand what stands behind a sign of equality."""
    monkeypatch.setenv("HOME", str(tmp_path))
    mi2p("predict", both, "--data", holes, "--out=~/answers.csv")
    assert (tmp_path / "answers.csv").is_file()


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_a_file_of_answers(both: Path, holes: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / "results" / f"answers{ending}"
    out.parent.mkdir()
    result = mi2p("predict", both, "--data", holes, "--out", out)
    assert result.stdout == ""
    assert "note: 2 of 7 records have no input" in result.stderr
    found, answers, own = read(out), lines(mi2p("predict", both, "--data", holes)), read(holes)
    assert [{name: one[name] for name in ("id", "image", "text")} for one in found] == own
    assert [one["predicted_label"] or None for one in found] == [answer["label"] for answer in answers]
    assert [one["problem"] or None for one in found] == PROBLEMS
    for one, answer in zip(found, answers, strict=True):
        if ending == ".jsonl":
            assert one["probabilities"] == answer["probabilities"]
        else:
            given = {name: one[f"probabilities.{name}"] for name in CLASSES}
            expected = answer["probabilities"] or dict.fromkeys(CLASSES, "" if ending == ".csv" else None)
            assert given == ({name: str(value) for name, value in expected.items()} if ending == ".csv" else expected)
    assert sorted(path.name for path in out.parent.iterdir()) == [out.name]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_several_labels_and_their_thresholds(tmp_path: Path, ending: str) -> None:
    run = train(write_table(tmp_path / "data", several=True), tmp_path / "run", model="text")
    thresholds = dict(
        zip(CLASSES, json.loads((run / "metrics.json").read_text())["decision"]["thresholds"], strict=True)
    )
    (tmp_path / "new.csv").write_text('text,labels\n"navy, or ""so""",mine\nlime,\n,\n')
    out = tmp_path / f"answers{ending}"
    mi2p("predict", run, "--data", tmp_path / "new.csv", "--out", out)
    answers = lines(mi2p("predict", run, "--data", tmp_path / "new.csv"))
    for one, answer in zip(read(out), answers, strict=True):
        assert answer["thresholds"] == pytest.approx(thresholds, abs=1e-6)
        if answer["problem"] is None:
            held = [name for name in CLASSES if answer["probabilities"][name] >= answer["thresholds"][name] - 1e-6]
            assert answer["labels"] == held
        given = {".csv": "|".join(answer["labels"] or [])}.get(ending, answer["labels"])
        assert one["predicted_labels"] == given
    assert [one["labels"] for one in read(out)] == ["mine", "", ""]
    assert read(out)[0]["text"] == 'navy, or "so"'


def test_own_columns_keep_their_types(both: Path, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    own = pyarrow.table(
        {
            "text": ["a", None, "c"],
            "label": pyarrow.array([3, None, 1], pyarrow.int8()),
            "when": pyarrow.array([0, 1, 2], pyarrow.timestamp("ms", "UTC")),
            "problem": [[1.5], [], None],
        }
    )
    pyarrow.parquet.write_table(own, tmp_path / "new.parquet")
    result = mi2p("predict", both, "--data", tmp_path / "new.parquet", "--out", tmp_path / "out.parquet")
    found = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert found.select(own.column_names).equals(own)
    assert found["problem_2"].to_pylist() == [None, "no input: no text", None]
    assert "problem_2" in result.stderr
    rows = [{"text": "a", "n": 1, "x": [1], "b": True}, {"text": "b", "n": 2.5, "b": None}, {"text": "c", "x": "y"}]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    mi2p("predict", both, "--data", tmp_path / "new.jsonl", "--out", tmp_path / "out2.parquet")
    kept = pyarrow.parquet.read_table(tmp_path / "out2.parquet").select(["text", "n", "x", "b"]).to_pydict()
    assert kept == {"text": ["a", "b", "c"], "n": [1.0, 2.5, None], "x": ["[1]", None, "y"], "b": [True, None, None]}
    mi2p("predict", both, "--data", tmp_path / "new.jsonl", "--out", tmp_path / "out2.csv")
    assert [one["x"] for one in read(tmp_path / "out2.csv")] == ["[1]", "", "y"]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_names_of_columns_that_are_no_unicode(both: Path, tmp_path: Path, ending: str) -> None:
    (tmp_path / "new.jsonl").write_text('{"text": "a", "k\\ud83d": "v\\ud83d", "k\\ud83e": "w"}\n')
    mi2p("predict", both, "--data", tmp_path / "new.jsonl", "--out", tmp_path / f"out{ending}")
    assert {"v", "w"} <= {str(one)[:1] for one in read(tmp_path / f"out{ending}")[0].values()}


def test_unusable_files_of_answers(both: Path, holes: Path, tmp_path: Path) -> None:
    (tmp_path / "there.csv").write_text("mine")
    (tmp_path / "folder.csv").mkdir()
    before = holes.read_bytes()
    cases = [
        ("answers.xlsx", ".csv, .jsonl, .parquet"),
        ("none/answers.csv", "no folder"),
        ("folder.csv", "is a folder"),
        ("holes.csv", "is what is read"),
        ("there.csv", "--overwrite"),
    ]
    for name, words in cases:
        assert words in mi2p("predict", both, "--data", holes, "--out", tmp_path / name, code=1).stderr, name
    mi2p("predict", both, "--data", holes, "--out", holes, "--overwrite", code=1)
    assert (holes.read_bytes(), (tmp_path / "there.csv").read_text()) == (before, "mine")
    mi2p("predict", both, "--data", holes, "--out", tmp_path / "there.csv", "--overwrite")
    assert len(read(tmp_path / "there.csv")) == 7
    picture(tmp_path / "pictures" / "a.png", 0)
    inside = ("--data", tmp_path / "pictures", "--out", tmp_path / "pictures" / "answers.csv")
    assert "data folder" in mi2p("predict", both, *inside, code=1).stderr
    assert "--data" in mi2p("predict", both, "--text", "x", "--out", tmp_path / "x.csv", code=1).stderr


@pytest.mark.fault("predict", "a table that breaks off", "an error; no file of answers")
def test_a_broken_table_leaves_no_file(both: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("text,n\n" + "a,1\n" * 100 + "b\n")
    result = mi2p("predict", both, "--data", tmp_path / "new.csv", "--out", tmp_path / "out.csv", code=1)
    assert "line 102" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.csv"]


@pytest.mark.parametrize("command", ["predict", "eval"])
def test_options_that_do_not_belong(both: Path, holes: Path, command: str) -> None:
    for given, words in (("learning_rate=1", "learning_rate"), ("image_rot=x", "image_root"), ("model=text", "model")):
        assert words in mi2p(command, both, "--data", holes, "--set", given, code=1).stderr


def test_a_folder_of_pictures_with_a_table_for_each_split(both: Path, holes: Path, tmp_path: Path) -> None:
    rows = [{**one, "image": one["image"] and str(holes.parent / one["image"])} for one in read(holes)]
    for split, some in (("train", rows[:4]), ("test", rows[4:])):
        folder = tmp_path / "pictures" / split
        folder.mkdir(parents=True)
        with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(some)
    found = lines(mi2p("predict", both, "--data", tmp_path / "pictures"))
    whole = lines(mi2p("predict", both, "--data", holes))
    names = [one["label"] for one in whole]
    assert [one["label"] for one in found] == [*names[4:], *names[:4]]  # test comes before train
