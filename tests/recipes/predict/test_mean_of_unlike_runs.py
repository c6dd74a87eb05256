"""The mean of runs that were trained, or read their data, otherwise than one another."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from PIL import Image
from predict_commands import lines, mi2p, train
from recipes_data import write_table

from mi2p_inject.recipes import fit, load_mean, load_run
from mi2p_inject.recipes.errors import RecipeError


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A vision and a text model of the same samples."""
    table, folder = write_table(tmp_path_factory.mktemp("data")), tmp_path_factory.mktemp("runs")
    return [train(table, folder / model, model=model) for model in ("vision", "text")]


def table_of(file: Path, **columns: list[Any]) -> Path:
    pandas.DataFrame(columns).to_csv(file, index=False)
    return file


def a_copy(table: Path, folder: Path, **changed: Any) -> Path:
    """The same pictures, with other columns."""
    rows = pandas.read_csv(table, dtype=str)
    rows["image"] = [str(table.parent / one) if isinstance(one, str) else None for one in rows["image"]]
    folder.mkdir()
    rows.assign(**changed).to_csv(folder / "copy.csv", index=False)
    return folder / "copy.csv"


def test_runs_that_decide_otherwise_say_which_one_counts(tmp_path: Path) -> None:
    table = write_table(tmp_path, several=True)
    tuned = train(table, tmp_path / "tuned", model="text")
    fixed = train(table, tmp_path / "fixed", model="text", seed=1, thresholds="fixed", calibrate="false")
    for first, second in ((tuned, fixed), (fixed, tuned)):
        mean = load_mean(first, second)
        words = f"the mean is decided as {first} is"
        assert words in " ".join(mean.notes)
        assert "thresholds" in " ".join(mean.notes)
        assert "calibrate" in " ".join(mean.notes)
        assert words in mi2p("predict", first, second, "--text", "navy").stderr
        assert words in " ".join(json.loads(mi2p("eval", first, second, "--json").stdout)["notes"])
    other = train(table, tmp_path / "other", model="text", seed=2)
    assert not load_mean(tuned, other).notes


@pytest.mark.fault("predict", "a mean over samples that its runs read otherwise", "RecipeError")
def test_the_fix_for_runs_that_drop_samples_helps(runs: list[Path], tmp_path: Path) -> None:
    train_table = write_table(tmp_path)
    drops = train(train_table, tmp_path / "drops", model="text", missing="drop")
    new = table_of(
        tmp_path / "new.csv",
        image=["img/train0.png", None, "img/train2.png"],
        text=["navy", "lime", "crimson"],
        label=["blue", "green", "red"],
    )
    said = mi2p("eval", runs[0], drops, "--data", new, code=1).stderr
    fix = next(line for line in said.splitlines() if "fix:" in line).partition("alike: ")[2]
    assert fix == "--set missing=keep"
    assert json.loads(mi2p("eval", runs[0], drops, "--data", new, "--json", *shlex.split(fix)).stdout)["samples"] == 3


@pytest.mark.fault("predict", "a mean over samples of other labels or contents", "RecipeError")
@pytest.mark.parametrize("column", ["label", "text"])
def test_other_samples_of_the_same_numbers_have_no_mean(column: str, runs: list[Path], tmp_path: Path) -> None:
    """Rows of a table without ids are numbered: those of another table have the same numbers."""
    table = write_table(tmp_path / "data")
    values = pandas.read_csv(table, dtype=str)[column]
    turned = [*values[:61], values[62], values[61], *values[63:]]  # of the test split
    other = train(a_copy(table, tmp_path / "other", **{column: turned}), tmp_path / "run", model="text")
    for two in ((runs[1], other), (other, runs[1])):
        said = mi2p("eval", *two, code=1).stderr
        assert f"the runs have other {column}s in the split 'test'" in said
        assert "--data other.csv" in said
    same = train(a_copy(table, tmp_path / "same"), tmp_path / "same" / "run", model="text")
    mi2p("eval", runs[1], same)


@pytest.mark.fault("predict", "a mean of runs whose label columns differ, on a table with both", "RecipeError")
def test_other_columns_of_labels_have_no_mean(runs: list[Path], tmp_path: Path) -> None:
    table = write_table(tmp_path / "data")
    labels = pandas.read_csv(table, dtype=str)["label"]
    genre = train(a_copy(table, tmp_path / "copy", genre=labels), tmp_path / "run", model="text", label_col="genre")
    texts, names = ["navy", "lime", "crimson"], ["blue", "green", "red"]
    new = table_of(tmp_path / "new.csv", text=texts, image=[None] * 3, label=names, genre=names[::-1])
    said = mi2p("eval", runs[1], genre, "--data", new, code=1).stderr
    assert "the runs have other labels in the split 'test'" in said
    fix = next(line for line in said.splitlines() if "fix:" in line).partition("alike: ")[2]
    mi2p("eval", runs[1], genre, "--data", new, *shlex.split(fix))


def test_a_table_that_one_of_them_reads_nothing_of(runs: list[Path], tmp_path: Path) -> None:
    """As one sample without a picture: the other answers."""
    new = table_of(tmp_path / "new.csv", text=["navy", None, "crimson"], label=["blue", "green", "red"])
    said = mi2p("predict", *runs, "--data", new)
    answers = lines(said)
    assert [answer["problem"] for answer in answers] == [None, "no input: no text", None]
    alone = json.loads(mi2p("predict", *runs, "--text", "navy").stdout)
    assert answers[0]["probabilities"] == pytest.approx(alone["probabilities"], abs=2e-5)
    words = "model 'vision' has nothing to read in these data and does not count"
    assert words in said.stderr
    evaluated = json.loads(mi2p("eval", *runs, "--data", new, "--json").stdout)
    assert words in " ".join(evaluated["notes"])
    neither = table_of(tmp_path / "neither.csv", other=["navy"])
    for command in (("predict", *runs), ("predict", runs[0]), ("eval", runs[0])):
        given = neither if command[0] == "predict" else new
        assert mi2p(*command, "--data", given, code=1).stderr


def test_pictures_in_memory_are_those_of_the_run_that_reads_them(tmp_path: Path) -> None:
    """Whichever comes first."""
    colours = {"red": lambda i: (200, i, i), "blue": lambda i: (i, i, 200)}
    rows = [
        {"photo": Image.new("RGB", (32, 32), colour(number)), "text": f"{name} {number}", "label": name}
        for name, colour in colours.items()
        for number in range(20)
    ]
    data = pandas.DataFrame(rows)
    options: dict[str, Any] = {"vision": "tiny:resnet", "text": "tiny:xlnet", "image_size": 32, "max_steps": 2}
    text = fit(data[["text", "label"]], "text", out=tmp_path / "text", verbose=False, **options)
    vision = fit(
        data[["photo", "label"]], "vision", image_col="photo", out=tmp_path / "vision", verbose=False, **options
    )
    one, other = (load_mean(*paths) for paths in ((text.path, vision.path), (vision.path, text.path)))
    assert one.predict_proba(data) == pytest.approx(other.predict_proba(data), abs=1e-6)
    with pytest.raises(RecipeError, match="column 'photo' holds a int"):
        one.predict([{"photo": 3, "text": "red"}])


def test_pictures_that_turn_out_to_be_damaged_do_not_count(tmp_path: Path) -> None:
    """Only 200 files are decoded before a training; the others are found to be damaged when they are read."""
    good = write_table(tmp_path).parent / "img" / "train0.png"
    rows = []
    for number in range(260):
        file, split = (
            tmp_path / "img" / f"{number}.png",
            "test" if number >= 80 else "validation" if number % 4 else "train",
        )
        damaged = split == "test" and number % 3 == 0
        file.write_bytes(good.read_bytes()[: 60 if damaged else None] + bytes([number % 256, number // 256]))
        word, label = (("navy", "blue"), ("lime", "green"))[number // 3 % 2]
        rows.append(
            {"image": str(file), "text": f"{word} {number}", "label": label, "split": split, "good": not damaged}
        )
    pandas.DataFrame(rows).to_csv(tmp_path / "rows.csv", index=False)
    runs = [train(tmp_path / "rows.csv", tmp_path / model, model=model) for model in ("vision", "text")]
    wanted = [row["good"] for row in rows if row["split"] == "test"]
    assert load_run(runs[0]).saved.predictions()["test_present"].tolist() == wanted
    tested = tmp_path / "test.csv"
    pandas.DataFrame([row for row in rows if row["split"] == "test"]).to_csv(tested, index=False)
    answers = lines(mi2p("predict", *runs, "--data", tested))
    right = [answer["probabilities"][row["label"]] for answer, row in zip(answers, rows[80:], strict=True)]
    for data in ((), ("--data", tested)):
        said = json.loads(mi2p("eval", *runs, *data, "--json").stdout)
        assert said["metrics"]["log_loss"]["value"] == pytest.approx(-np.log(right).mean(), abs=2e-5)
