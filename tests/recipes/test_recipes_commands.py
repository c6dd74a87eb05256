"""The commands on top of the recipes: every way to go wrong ends in one clear line, and the usual way in files."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from recipes_data import CLASSES, write_table
from typer.testing import CliRunner, Result

from mi2p_inject.recipes.cli.app import app
from mi2p_inject.recipes.experiments.sets.encoder_sets import ENCODERS

COMMANDS = ("train", "settings", "eval", "predict", "report", "table")
SMALL = (
    "--vision", "tiny:vit", "--text", "tiny:xlnet", "--max-steps", "2", "--batch-size", "8", "--set", "image_size=32",
)  # fmt: skip

TINY = ("--encoders", "tiny")


def mi2p(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200", "NO_COLOR": "1"})


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "first"
    result = mi2p("train", "--data", table, "--model", "me-vision", "--out", out, *SMALL)
    assert result.exit_code == 0, result.output
    for words in ("note:", "me-vision", "validation", "test", "accuracy", str(out)):
        assert words in result.output
    return out


def test_the_commands_of_the_docs_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs" / "training.md").read_text(encoding="utf-8")
    first, tuned, second = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    section = (root / "README.md").read_text(encoding="utf-8").split("## Train on your own data")[1].split("\n## ")[0]
    assert re.findall(r"```sh\n(.*?)```", section, re.DOTALL) == [first]
    table = write_table(tmp_path)
    (tmp_path / "cat.jpg").write_bytes((table.parent / "img" / "test0.png").read_bytes())
    monkeypatch.chdir(tmp_path)
    for line in first.splitlines():
        result = mi2p(*shlex.split(line)[1:])
        assert result.exit_code == 0, (line, result.output)
    small = tuned.replace("--vision demo --text demo", "--vision tiny:resnet --text tiny:bert")
    assert small != tuned
    for line in small.splitlines():
        result = mi2p(*shlex.split(line)[1:])
        assert result.exit_code == 0, (line, result.output)
    for line in second.splitlines():  # these take hours; their options exist
        result = mi2p(*shlex.split(line)[1:], "--seeds", "x")
        assert "whole numbers" in result.output, (line, result.output)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_examples(name: str) -> None:
    result = mi2p(name, "--help")
    assert result.exit_code == 0
    assert "Examples" in result.output
    assert f"mi2p {name}" in result.output


def test_predict(run: Path, table: Path) -> None:
    picture = table.parent / "img" / "test0.png"
    for given in (("--image", picture), ("--text", "a crimson thing"), ("--image", picture, "--text", "crimson")):
        answer = json.loads(mi2p("predict", run, *given).output)
        assert answer["label"] in CLASSES
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        assert max(answer["probabilities"], key=answer["probabilities"].get) == answer["label"]


def test_predict_a_file(run: Path, table: Path) -> None:
    result = mi2p("predict", run, "--data", table)
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(answers) == len(table.read_text().splitlines()) - 1
    assert len({answer["id"] for answer in answers}) == len(answers)


def test_eval_and_report(run: Path) -> None:
    numbers = json.loads(mi2p("eval", run, "--json").output)
    saved = json.loads(mi2p("report", run, "--json").output)
    assert numbers["metrics"]["accuracy"] == saved["test"]["accuracy"]
    assert set(numbers["f1_of_classes"]) == set(CLASSES)
    assert "accuracy" in mi2p("eval", run, "--split", "validation").output
    assert "# me-vision" in mi2p("report", run).output


def test_settings_are_a_configuration(tmp_path: Path, table: Path) -> None:
    result = mi2p("settings", "--yaml", "--preset", "paper", "--set", "seed=7")
    read = yaml.safe_load(result.output)
    assert (read["optimizer"], read["seed"]) == ("adam", 7)
    (tmp_path / "c.yaml").write_text(result.output)
    again = mi2p("settings", "--yaml", "--config", tmp_path / "c.yaml")
    assert yaml.safe_load(again.output) == read
    shown = mi2p("settings", "--set", "seed=7").output
    for words in ("of pre-trained parameters", "cosine | constant", "default: 5.0e-05", "here: 7"):
        assert words in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train",), "no data named"),
        (("train", "--data", "none.csv"), "none.csv"),
        (("train", "--data", "{table}", "--set", "epoch=3"), "did you mean 'epochs'"),
        (("train", "--data", "{table}", "--set", "epochs"), "name=value"),
        (("train", "--data", "{table}", "--model", "me-visio"), "did you mean 'me-vision'"),
        (("train", "--data", "{table}", "--preset", "papr"), "practical or paper"),
        (("train", "--data", "{table}", "--label-col", "lable"), "label"),
        (("train", "--data", "{table}", "--config", "none.yaml"), "cannot read"),
        (("table", "6", "--data", "{table}", "--encoders", "none"), "paper, demo, tiny"),
        (("table", "6", "--data", "{table}", "--seeds", "1,x"), "whole numbers"),
        (("table", "6", "--data", "{table}", "--seeds", "1,1"), "different"),
    ],
)
def test_mistakes_are_one_clear_line(arguments: tuple[str, ...], words: str, table: Path, tmp_path: Path) -> None:
    result = mi2p(*(one.format(table=table) for one in arguments), "--out", tmp_path / "run")
    assert result.exit_code == 1, result.output
    assert result.output.startswith("error: ")
    assert words in result.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", [("train",), ("table", "6")])
def test_unusable_folders(command: tuple[str, ...], table: Path, run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    cases = [
        (tmp_path / "file", "is a file"),
        (tmp_path / "file" / "below", "not a writable folder"),
        (Path("/proc/run"), "cannot write"),
        (tmp_path / "mine", "no run of mi2p"),
    ]
    for out, words in cases:
        result = mi2p(*command, "--data", table, "--out", out, *(SMALL if command == ("train",) else TINY))
        assert result.exit_code == 1
        assert words in result.output
    assert (tmp_path / "file").read_text() == "mine"
    result = mi2p("train", "--data", table, "--model", "me-vision", "--out", run, *SMALL)
    assert result.exit_code == 1
    assert "--overwrite" in result.output


@pytest.mark.parametrize("command", [("train", "--model", "me-vision"), ("table", "6")])
def test_a_mistaken_encoder_leaves_nothing_and_deletes_nothing(
    command: tuple[str, ...], table: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENCODERS, "mistaken", {**ENCODERS["tiny"], "clip-image": "tiny:nothing"})
    mistake = ("--text", "tiny:nothing") if command[0] == "train" else ("--encoders", "mistaken")
    small = SMALL if command[0] == "train" else ()
    new = tmp_path / "new"
    result = mi2p(*command, "--data", table, "--out", new, *small, *mistake)
    assert result.exit_code == 1, result.output
    assert "nothing" in result.output
    assert not new.exists()
    old = shutil.copytree(run, tmp_path / "old")
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    result = mi2p(*command, "--data", table, "--out", old, "--overwrite", *small, *mistake)
    assert result.exit_code == 1, result.output
    assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("report", "{tmp}"), "no run folder"),
        (("eval", "{tmp}"), "no run folder"),
        (("predict", "{tmp}", "--text", "a"), "no run folder"),
        (("predict", "{run}"), "one sample"),
        (("predict", "{run}", "--text", " "), "nothing to read"),
        (("predict", "{run}", "--text", "a", "--data", "b.csv"), "one sample"),
        (("predict", "{run}", "--image", "none.png"), "missing file"),
        (("predict", "{run}", "--data", "none.csv"), "none.csv"),
        (("eval", "{run}", "--split", "tset"), "train, validation, test"),
        (("eval", "{run}", "--split", "tset"), "did you mean 'test'?"),
        (("eval", "{run}", "--set", "image_size=64"), "leave it out: the model stays as it was trained"),
        (("predict", "{run}", "--data", "b.csv", "--set", "image_size=64"), "leave it out: the model stays"),
        (("predict", "{run}", "--data", "b.csv", "--set", "label_col=a"), "leave it out: it is of labelled data"),
        (("predict", "{run}", "--data", "b.csv", "--set", "image_cool=a"), "did you mean 'image_col'?"),
        (("eval", "{run}", "--data", "none.csv"), "none.csv"),
    ],
)
def test_mistakes_with_runs(arguments: tuple[str, ...], words: str, run: Path, tmp_path: Path) -> None:
    result = mi2p(*(one.format(tmp=tmp_path, run=run) for one in arguments))
    assert result.exit_code == 1, result.output
    assert result.output.startswith("error: ")
    assert words in result.output


def test_a_run_that_is_named_nearly_is_found(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent.parent)
    above = run.parent.name
    for named, fix in ((above, f"name a run in it: {above}/first"), (f"{above}/frist", f"the run in {above}/first?")):
        result = mi2p("predict", named, "--text", "a")
        assert result.exit_code == 1
        assert fix in result.output
    assert "did you mean" not in mi2p("predict", f"{above}/else", "--text", "a").output


def test_an_empty_path_is_one_clear_line() -> None:
    """As an unset variable of a shell makes it."""
    shown = CliRunner().invoke(app, ["train", "--data", "x.csv", "--out", ""])
    assert shown.exit_code == 2
    assert "it is empty: give a path" in shown.output
