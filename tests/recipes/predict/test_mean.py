"""The mean of several runs: the line of a table, a literal mean, and runs that have none."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from predict_commands import lines, mi2p, picture, train
from recipes_data import write_table
from scipy.special import expit, softmax

from mi2p_inject.recipes import fit, load_mean
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.saving.predictions import PREDICTIONS

TINY = ("--encoders", "tiny", "--preset", "practical", "--seeds", "0", "--set", "max_steps=6", "--set", "image_size=32")


@pytest.mark.parametrize("several", [False, True], ids=["one label", "several labels"])
def test_it_is_the_line_of_the_table(several: bool, tmp_path: Path) -> None:
    """Its temperature and thresholds, too, with samples that one of the models cannot read."""
    table, out = write_table(tmp_path, several=several), tmp_path / "table"
    wanted = [one for name in ("vision", "text", "score-apart") for one in ("--experiment", name)]
    mi2p("table", "3", "--data", table, "--out", out, *TINY, *wanted, "--set", "keep_weights=true")
    line = json.loads((out / "metrics.json").read_text())["experiments"]["score-apart"]["by_seed"]
    runs = [out / "experiments" / name / "seed-0" for name in ("vision", "text")]
    said = json.loads(mi2p("eval", *runs, "--json").stdout)
    assert said["metrics"].keys() == line.keys()
    assert said["notes"][-1] == "the mean of 2 runs"
    for name, value in said["metrics"].items():
        assert value["value"] == pytest.approx(line[name][0], abs=1e-6), name
    assert said["metrics"] != json.loads(mi2p("eval", runs[0], "--json").stdout)["metrics"]


def test_the_command_under_a_table_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the system that the validation split picks."""
    table, out = write_table(tmp_path), tmp_path / "table"
    names = ("vision", "text", "score-apart", "me-vision", "me-vision-score-apart")
    wanted = [one for name in names for one in ("--experiment", name)]
    said = mi2p("table", "3", "--data", table, "--out", out, *TINY, *wanted, "--set", "keep_weights=true").stdout
    command = re.search(r"`mi2p (predict experiments/.+) --data new.csv` in the table's folder", _text(out))
    assert command is not None
    assert command[1] in " ".join(said.split())
    assert "Picked by accuracy on the validation split" in said
    monkeypatch.chdir(out)
    assert len(lines(mi2p(*command[1].split(), "--data", table))) == 72


def _text(out: Path) -> str:
    return (out / "table.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A vision and a text model of the same samples."""
    table = write_table(tmp_path_factory.mktemp("data"))
    folder = tmp_path_factory.mktemp("runs")
    return [train(table, folder / model, model=model, max_steps=6) for model in ("vision", "text")]


def literal(runs: list[Path], holes: Path) -> list[dict[str, float] | None]:
    """The mean of the runs' own probabilities, over those that had something to read."""
    every = [[answer["probabilities"] for answer in lines(mi2p("predict", run, "--data", holes))] for run in runs]
    found: list[dict[str, float] | None] = []
    for one in zip(*every, strict=True):
        read = [answer for answer in one if answer is not None]
        found.append({name: float(np.mean([a[name] for a in read])) for name in read[0]} if read else None)
    return found


def cooler(probabilities: dict[str, float], temperature: float) -> dict[str, float]:
    logits = np.log(list(probabilities.values())) / temperature
    return dict(zip(probabilities, softmax(logits).tolist(), strict=True))


def test_each_record_has_the_mean_of_those_that_read_it(runs: list[Path], holes: Path) -> None:
    mean = load_mean(*runs)
    said = mi2p("predict", *runs, "--data", holes)
    for answer, expected in zip(lines(said), literal(runs, holes), strict=True):
        if expected is None:
            assert answer["label"] is answer["probabilities"] is None
        else:
            wanted = cooler(expected, mean.decision["temperature"])
            assert answer["probabilities"] == pytest.approx(wanted, abs=2e-5)
            assert answer["label"] == max(wanted, key=wanted.__getitem__)
    assert [answer["id"] for answer in lines(said)] == ["9", "7", "8", "1", "2", "3", "9"]
    assert lines(said)[1]["problem"] == "no input: no image, no text"
    assert "2 of 7 records have no input and so no answer" in said.stderr
    table = pandas.read_csv(holes, dtype=str)
    shown = [answer["label"] for answer in lines(said)]
    assert mean.predict(table.assign(image=[_path(holes, one) for one in table["image"]])).tolist() == shown


def _path(holes: Path, cell: Any) -> Any:
    return str(holes.parent / cell) if isinstance(cell, str) else None


def test_one_sample_is_answered_as_in_a_file(runs: list[Path], holes: Path) -> None:
    answers = lines(mi2p("predict", *runs, "--data", holes))
    image = holes.parent / "a.png"
    for row, given in ((0, ("--image", image, "--text", "crimson")), (2, ("--image", image)), (3, ("--text", "navy"))):
        alone = mi2p("predict", *runs, *given)
        assert json.loads(alone.stdout)["probabilities"] == pytest.approx(answers[row]["probabilities"], abs=2e-5)
        assert "was left out" not in alone.stderr  # one of the two reads it


def test_several_seeds_and_thresholds(tmp_path: Path) -> None:
    table = write_table(tmp_path, several=True)
    seeds = [train(table, tmp_path / f"run{seed}", model="text", seed=seed, max_steps=6) for seed in (0, 1, 2)]
    mean = load_mean(*seeds)
    thresholds = mean.decision["thresholds"]
    answers = lines(mi2p("predict", *seeds, "--data", table))
    own = [[a["probabilities"] for a in lines(mi2p("predict", seed, "--data", table))] for seed in seeds]
    for answer, *single in zip(answers, *own, strict=True):
        if answer["labels"] is None:
            continue
        scores = np.mean([list(one.values()) for one in single], axis=0)
        wanted = expit(np.log(scores / (1 - scores)) / mean.decision["temperature"])
        assert list(answer["probabilities"].values()) == pytest.approx(wanted.tolist(), abs=2e-5)
        chosen = [name for name, p, least in zip(mean.classes, wanted, thresholds, strict=True) if p >= least]
        assert answer["labels"] == chosen


def test_without_common_predictions_it_says_so(runs: list[Path], tmp_path: Path) -> None:
    other = train(write_table(tmp_path / "data"), tmp_path / "other", model="text", missing="drop")
    for second, words in ((other, "trained on other samples"), (_from_hub(runs[1], tmp_path), "from the Hub")):
        mean = load_mean(runs[0], second)
        assert not mean.decision
        assert words in " ".join(mean.notes)
        assert words in mi2p("predict", runs[0], second, "--text", "navy").stderr
    said = mi2p("eval", runs[0], other, code=1).stderr
    assert "other samples in the split 'test'" in said
    assert "--data other.csv" in said


def _from_hub(run: Path, folder: Path) -> Path:
    """As `mi2p push` leaves it: without predictions."""
    copied = shutil.copytree(run, folder / "hub")
    (copied / PREDICTIONS).unlink()
    sums = json.loads((copied / "checksums.json").read_text())
    (copied / "checksums.json").write_text(json.dumps(_without(sums, PREDICTIONS)))
    return copied


def _without(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return {key: _without(one, name) for key, one in value.items() if key != name}
    return value


@pytest.mark.fault("predict", "a mean of runs of other classes, or of a run with itself", "RecipeError")
def test_runs_without_a_mean(runs: list[Path], tmp_path: Path) -> None:
    several = train(write_table(tmp_path, several=True), tmp_path / "several", model="text")
    with pytest.raises(RecipeError, match=r"runs of different classes have no mean[\s\S]*multi-label"):
        load_mean(runs[0], several)
    for command in ("predict", "eval"):
        more = ("--text", "x") if command == "predict" else ()
        assert "is given twice" in mi2p(command, runs[0], runs[0].parent / "." / "vision", *more, code=1).stderr
    for paths in ((), (runs[0],)):
        with pytest.raises(RecipeError, match="two runs or more"):
            load_mean(*paths)


def test_columns_that_one_of_them_reads(tmp_path: Path) -> None:
    rows = [{"text": f"a {c} thing {i}", "price": i, "label": c} for c in ("red", "blue") for i in range(24)]
    data = pandas.DataFrame([{**row, "image": picture(tmp_path / f"{i}.png", i % 3, i)} for i, row in enumerate(rows)])
    options: dict[str, Any] = {"vision": "tiny:resnet", "text": "tiny:xlnet", "image_size": 32, "max_steps": 3}
    plain = fit(data, "text", out=tmp_path / "plain", verbose=False, **options)
    reads = fit(data, "me-vision", out=tmp_path / "reads", numeric_cols="price", verbose=False, **options)
    mean = load_mean(plain.path, reads.path)
    one = {"image": data["image"][0], "text": "a red thing", "price": 3}
    found = np.log(np.mean([run.predict_proba([one])[0] for run in (plain, reads)], axis=0))
    wanted = pytest.approx(softmax(found / mean.decision["temperature"]).tolist(), abs=2e-5)
    assert mean.predict_proba([one])[0].tolist() == wanted
    given = ("--image", one["image"], "--text", one["text"])
    said = mi2p("predict", plain.path, reads.path, *given, "--column", "price=3")
    assert list(json.loads(said.stdout)["probabilities"].values()) == wanted
    assert "prize" in mi2p("predict", plain.path, reads.path, *given, "--column", "prize=3", code=1).stderr
