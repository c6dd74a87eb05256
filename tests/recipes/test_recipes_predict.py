"""An answer for each record of a table, in the file's order, from the right picture; what could not be read is said."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from recipes_data import CLASSES, write_table
from training_runs import RATES
from typer.testing import CliRunner, Result

from mi2p_inject.recipes.cli.app import app

SMALL = {"vision": "tiny:resnet", "text": "tiny:bert", "image_size": 32, "batch_size": 8, "max_steps": 2, **RATES}


def mi2p(*arguments: str | Path, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(one) for one in arguments], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert result.exit_code == code, result.output
    return result


def train(table: Path, out: Path, **more: Any) -> Path:
    mi2p("train", "--data", table, "--out", out, *(f"--set={name}={value}" for name, value in (SMALL | more).items()))
    return out


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def picture(path: Path, colour: int, seed: int = 0) -> str:
    pixels = np.random.default_rng(seed).integers(0, 80, (20, 24, 3)).astype(np.uint8)
    pixels[..., colour] += 120
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return str(path)


def alone(run: Path, image: Path | str | None = None, text: str | None = None) -> dict[str, Any]:
    """The answer to one sample, given by itself."""
    given = [("--image", image), ("--text", text)]
    return json.loads(mi2p("predict", run, *(x for name, one in given if one for x in (name, one))).stdout)


def same(answer: dict[str, Any], expected: dict[str, Any]) -> None:
    assert answer["label"] == expected["label"]
    assert answer["probabilities"] == pytest.approx(expected["probabilities"], abs=2e-5)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An expanded model: it reads pictures and texts, and does with one of them."""
    return train(
        write_table(tmp_path_factory.mktemp("both")), tmp_path_factory.mktemp("runs") / "me", model="me-vision"
    )


@pytest.fixture(scope="module")
def rooted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of pictures whose table names them from another folder; trained until it knows the colours."""
    folder = tmp_path_factory.mktemp("rooted")
    write_table(folder / "pictures")
    (folder / "pictures" / "my.csv").rename(folder / "my.csv")
    steps = {"epochs": 6, "max_steps": 36, "learning_rate": 1e-2, "new_learning_rate": 1e-2}
    return train(folder / "my.csv", folder / "run", model="vision", image_root=folder / "pictures", **steps)


# --- from the right picture


def _csv(folder: Path, image: str) -> Path:
    (folder / "new.csv").write_text(f"image\n{image}\n")
    return folder / "new.csv"


def _tsv(folder: Path, image: str) -> Path:
    (folder / "new.tsv").write_text(f"image\ttext\n{image}\tx\n")
    return folder / "new.tsv"


def _jsonl(folder: Path, image: str) -> Path:
    (folder / "new.jsonl").write_text(json.dumps({"image": image}) + "\n")
    return folder / "new.jsonl"


def _parquet(folder: Path, image: str) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"image": [image]}), folder / "new.parquet")
    return folder / "new.parquet"


def _tables(folder: Path, image: str) -> Path:
    (folder / "test.csv").write_text(f"image\n{image}\n")
    return folder


def _pictures(folder: Path, image: str) -> Path:
    return folder / Path(image).parent


NEW = (_csv, _tsv, _jsonl, _parquet, _tables, _pictures)


@pytest.mark.parametrize("write", NEW, ids=lambda one: one.__name__.strip("_"))
@pytest.mark.fault(
    "predict", "a new table whose pictures have the names of the training's", "its own pictures, from its own folder"
)
def test_a_new_table_means_its_own_pictures(rooted: Path, tmp_path: Path, write: Callable[[Path, str], Path]) -> None:
    """The training's folder has a picture of this very name, of another colour."""
    assert (rooted.parent / "pictures" / "img" / "test0.png").is_file()
    own = picture(tmp_path / "img" / "test0.png", colour=0)  # red; the training's is blue
    theirs = picture(tmp_path / "other" / "test0.png", colour=2)
    expected = alone(rooted, own)
    assert expected["probabilities"] != alone(rooted, theirs)["probabilities"]
    data = write(tmp_path, "img/test0.png")
    (answer,) = lines(mi2p("predict", rooted, "--data", data))
    same(answer, expected)
    assert answer["problem"] is None


@pytest.mark.parametrize("option", [("--image-root", "{}"), ("--set", "image_root={}")], ids=("option", "set"))
@pytest.mark.fault("predict", "pictures in another folder", "--image-root of predict")
def test_the_folder_of_the_pictures_can_be_named(rooted: Path, tmp_path: Path, option: tuple[str, str]) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    picture(here / "a.png", colour=0)
    expected = alone(rooted, picture(there / "a.png", colour=2))
    (answer,) = lines(mi2p("predict", rooted, "--data", _csv(here, "a.png"), option[0], option[1].format(there)))
    same(answer, expected)
    numbers = mi2p("eval", rooted, "--data", _labelled(here, "blue"), option[0], option[1].format(there), "--json")
    answer = alone(rooted, there / "a.png")
    assert json.loads(numbers.stdout)["metrics"]["accuracy"]["value"] == float(answer["label"] == "blue")


def test_absolute_paths_and_a_moved_run_folder(rooted: Path, tmp_path: Path) -> None:
    own = picture(tmp_path / "far" / "a.png", colour=2)
    moved = shutil.copytree(rooted, tmp_path / "moved")
    (tmp_path / "tables").mkdir()
    (answer,) = lines(mi2p("predict", moved, "--data", _csv(tmp_path / "tables", own)))
    same(answer, alone(rooted, own))


def _labelled(folder: Path, label: str) -> Path:
    (folder / "labelled.csv").write_text(f"image,label\na.png,{label}\n")
    return folder / "labelled.csv"


@pytest.mark.fault("predict", "eval of a new table", "its own pictures")
def test_eval_of_new_data_means_its_own_pictures(rooted: Path, tmp_path: Path) -> None:
    for folder, colour in ((tmp_path, 2), (rooted.parent / "pictures", 0)):
        picture(folder / "a.png", colour)
    answer = alone(rooted, tmp_path / "a.png")
    assert answer["label"] != alone(rooted, rooted.parent / "pictures" / "a.png")["label"]
    numbers = json.loads(mi2p("eval", rooted, "--data", _labelled(tmp_path, answer["label"]), "--json").stdout)
    assert numbers["metrics"]["accuracy"]["value"] == 1


@pytest.mark.parametrize("given", [(), ("--data", "{data}"), ("--data", "{other}")], ids=("none", "same", "same-file"))
def test_eval_of_its_own_data_keeps_its_folder(rooted: Path, given: tuple[str, ...]) -> None:
    names = {"data": rooted.parent / "my.csv", "other": rooted / ".." / "my.csv"}
    numbers = json.loads(mi2p("eval", rooted, *(one.format(**names) for one in given), "--json").stdout)
    saved = json.loads((rooted / "metrics.json").read_text())
    assert numbers["metrics"]["accuracy"] == saved["test"]["accuracy"]
    assert numbers["samples"] == 12


def test_a_folder_that_is_not_there(rooted: Path, tmp_path: Path) -> None:
    result = mi2p("predict", rooted, "--data", _csv(tmp_path, "a.png"), "--image-root", tmp_path / "none", code=1)
    assert "does not exist" in result.stderr
    pictures = tmp_path / "pictures"
    picture(pictures / "a.png", 0)
    result = mi2p("predict", rooted, "--data", pictures, "--image-root", tmp_path, code=1)
    assert "--image-root" in result.stderr


# --- an answer for each record, in the file's order


@pytest.fixture
def holes(tmp_path: Path) -> Path:
    """Whole, empty, image only, a missing file, a damaged file, whole again (twice the same)."""
    picture(tmp_path / "a.png", 0)
    (tmp_path / "bad.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    rows = [
        ("9", "a.png", "crimson"), ("7", "", ""), ("8", "a.png", ""), ("1", "gone.png", "navy"),
        ("2", "gone.png", ""), ("3", "bad.png", "navy"), ("9", "a.png", "crimson"),
    ]  # fmt: skip
    with (tmp_path / "holes.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "image", "text"), *rows])
    return tmp_path / "holes.csv"


PROBLEMS = [
    None, "no input: no image, no text", "no text", "image: missing file",
    "no input: image: missing file, no text", "image: damaged", None,
]  # fmt: skip


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
    answers = lines(mi2p("predict", both, "--data", tmp_path))
    assert [answer["id"] for answer in answers] == ["a.png", "b/1.txt", "b/2.png", "c.png"]
    same(answers[1], alone(both, text="alone"))
    same(answers[3], alone(both, tmp_path / "c.png", "navy"))


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


# --- the file of answers


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    if path.suffix == ".parquet":
        import pyarrow.parquet

        found: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
        return found
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


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
