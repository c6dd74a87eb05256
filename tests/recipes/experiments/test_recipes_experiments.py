"""The runner: runs that can be resumed and extended, and numbers that are those of the run folders."""

from __future__ import annotations

import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import Forked
from recipes_data import write_table
from table_runs import ONLY, SMALL, TABLE, numbers_of, run
from training_runs import wait_for
from typer.testing import CliRunner

from mi2p_inject import ExpandedModel
from mi2p_inject.recipes.cli.app import app
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.experiments.folder import finished_runs, what_is_kept
from mi2p_inject.recipes.experiments.sets.paper_tables import TABLES
from mi2p_inject.recipes.metrics.metrics import bootstrap_difference, bootstrap_metrics
from mi2p_inject.recipes.metrics.probability_metrics import expected_calibration_error, log_loss
from mi2p_inject.recipes.saving.saved import load_run


def test_the_table_is_what_its_runs_predict(finished: tuple[Path, Path]) -> None:
    _, out = finished
    numbers = numbers_of(out)
    assert list(numbers["experiments"]) == list(ONLY)
    assert list(numbers["metrics"]) == list(numbers["experiments"]["clip-image"]["test"])
    assert {"accuracy", "macro_f1", "weighted_f1", "log_loss", "expected_calibration_error"} == set(numbers["metrics"])
    for name, line in numbers["experiments"].items():
        runs = [load_run(out / "experiments" / name / f"seed-{seed}") for seed in (0, 1)]
        scores: dict[str, list[float]] = {metric: [] for metric in numbers["metrics"]}
        for one in runs:
            found = one.predictions()
            true, probabilities = found["test_labels"], one.probabilities(found["test_logits"])
            single = one.task.measure(true, one.decide(found["test_logits"]))
            single |= {"log_loss": log_loss(true, probabilities)}
            single |= {"expected_calibration_error": expected_calibration_error(true, probabilities)}
            for metric, value in single.items():
                scores[metric].append(value)
        for metric, values in scores.items():
            assert line["by_seed"][metric] == pytest.approx(values)
            assert line["test"][metric]["value"] == pytest.approx(np.mean(values))
            assert line["sd"][metric] == pytest.approx(np.std(values, ddof=1))
        validation = [one.predictions() for one in runs]
        right = [(one["validation_logits"].argmax(axis=1) == one["validation_labels"]).mean() for one in validation]
        assert line["validation"]["accuracy"] == pytest.approx(np.mean(right))
        assert len({tuple(one.predictions()["test_labels"]) for one in runs}) == 1  # one split for all seeds
        assert runs[0].predictions()["test_logits"].tolist() != runs[1].predictions()["test_logits"].tolist()
    text = (out / "table.md").read_text()
    encoders = numbers["experiments"]["me-clip-image"]["encoders"]
    for words in (
        f"ME {encoders['image']}, reads {encoders['text']}",
        "random weights",
        "ME CLIP-Img-Encoder",
        "stand-ins",
        "Mean over seeds 0, 1",
        "my.csv",
        "log-loss ↓",
    ):
        assert words in text
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert str(out.parent) not in text + (out / "metrics.json").read_text()  # no path of this machine


def test_units_are_where_they_reach_the_head(finished: tuple[Path, Path], tmp_path: Path) -> None:
    """All models of a table are first built without weights; this head reads no patches of the last block."""
    out, only = tmp_path / "out", ["me-clip-image"]
    run(finished[0], out, (0,), given={"keep_weights": True, "reading_check": False}, only=only)
    model, _ = load_run(out / "experiments" / "me-clip-image" / "seed-0").model()
    sites = [site.path for one in model.modules() if isinstance(one, ExpandedModel) for site in one.sites]
    assert sites == ["transformer.resblocks.0"]


def test_where_a_bad_picture_lies_is_not_told(tmp_path: Path) -> None:
    table = write_table(tmp_path)
    (table.parent / "img" / "train3.png").write_bytes(b"no picture")
    numbers = run(table, tmp_path / "out", (0,), only=("clip-image",))
    assert any("train3.png" in note for note in numbers["data"]["notes"])
    assert str(tmp_path) not in (tmp_path / "out" / "metrics.json").read_text()


def test_the_intervals_are_those_of_the_paired_group_bootstrap(finished: tuple[Path, Path]) -> None:
    _, out = finished
    runs = {name: [load_run(out / "experiments" / name / f"seed-{seed}") for seed in (0, 1)] for name in ONLY}
    found = {name: [one.predictions() for one in of] for name, of in runs.items()}
    true, groups = (found["clip-image"][0][f"test_{kind}"] for kind in ("labels", "groups"))
    answers = {name: [one["test_logits"].argmax(axis=1) for one in of] for name, of in found.items()}
    task = runs["clip-image"][0].task
    lines = numbers_of(out)["experiments"]
    mean = bootstrap_metrics(task, true, answers["clip-image"], groups, seed=0)["macro_f1"]
    pair = (answers["me-clip-image"], answers["clip-image"])
    gain = bootstrap_difference(task, true, *pair, groups, seed=0)["macro_f1"]
    shown = (lines["clip-image"]["test"], lines["me-clip-image"]["gain"]["clip-image"]["test"])
    for expected, one in zip((mean, gain), shown, strict=True):
        assert one["macro_f1"] == pytest.approx(vars(expected))
    assert lines["me-clip-image"]["gain"]["clip-image"]["seeds"] == [0, 1]
    single = lines["me-clip-image"]["gain"]["clip-image"]["test"]["log_loss"]
    losses = {
        name: [log_loss(true, one.probabilities(one.predictions()["test_logits"])) for one in of]
        for name, of in runs.items()
    }
    assert single["value"] == pytest.approx(np.mean(losses["me-clip-image"]) - np.mean(losses["clip-image"]))
    assert single["low"] < single["value"] < single["high"]


def test_the_trivial_baseline_stands_below(finished: tuple[Path, Path]) -> None:
    _, out = finished
    numbers = numbers_of(out)
    run = load_run(out / "experiments" / "clip-image" / "seed-0")
    true = run.predictions()["test_labels"]
    always = run.task.classes.index(numbers["baseline"]["answer"])
    assert always in (0, 1, 2)
    assert numbers["baseline"]["test"]["accuracy"]["value"] == pytest.approx((true == always).mean())
    for line in numbers["experiments"].values():
        over = line["over_baseline"]["accuracy"]["value"]
        assert over == pytest.approx(line["test"]["accuracy"]["value"] - (true == always).mean())
        shares = run.task.probabilities(np.log([[1 / 3] * 3])).repeat(len(true), axis=0)  # as many of each in training
        over = line["over_baseline"]["log_loss"]["value"]
        assert over == pytest.approx(line["test"]["log_loss"]["value"] - log_loss(true, shares))
        assert set(line["unanswered"]) <= set(run.task.classes)
    reading = numbers["experiments"]["me-clip-image"]["reading"]["text"]
    checks = [
        load_run(out / "experiments" / "me-clip-image" / f"seed-{seed}").numbers["reading"]["modalities"]["text"]
        for seed in (0, 1)
    ]
    assert reading["worth"] == pytest.approx(np.mean([one["worth"]["value"] for one in checks]))
    assert reading["above"] == sum(one["worth"]["low"] > 0 for one in checks)
    text = (out / "table.md").read_text()
    assert "| me-clip-image: text | accuracy |" in text
    assert f"| trivial baseline | always {run.task.classes[always]} | " in text
    assert "Not surely better in accuracy than always answering" in text  # two steps of a random model


def test_mi2p_report_shows_it(finished: tuple[Path, Path]) -> None:
    result = CliRunner().invoke(app, ["report", str(finished[1])])
    assert result.output == (finished[1] / "table.md").read_text()


@pytest.mark.fault("kills", "SIGKILL while a table trains", "the same command ends with the same numbers; no leftovers")
def test_a_killed_table_goes_on_to_the_very_same_numbers(finished: tuple[Path, Path], tmp_path: Path) -> None:
    table, done = finished
    out = tmp_path / "out"
    given = {"data": str(table), **SMALL, "source_cache": str(table.parent / "cache"), "save_steps": 1}
    command = ["table", "6", "--encoders", "tiny", "--preset", "practical", "--seeds", "0,1", "--out", str(out)]
    command += [f"--experiment={name}" for name in ONLY] + [f"--set={name}={value}" for name, value in given.items()]
    middle = out / "experiments" / "me-clip-image" / "seed-0" / "checkpoints" / "checkpoint-1" / "trainer_state.json"
    with Forked(["-m", "mi2p_inject.recipes", *command], stderr=subprocess.STDOUT) as process:
        wait_for(middle.exists, process)
        process.send_signal(signal.SIGKILL)
    assert finished_runs(out) == {"clip-image": [0, 1]}
    assert "2 finished runs kept" in what_is_kept(out)
    assert "clip-image seed 0, clip-image seed 1" in what_is_kept(out)
    assert not (out / "metrics.json").exists()
    run(table, out, given={"save_steps": 1})
    numbers, expected = (numbers_of(folder)["experiments"] for folder in (out, done))
    for name in ONLY:
        for kind in ("test", "by_seed", "sd", "gain", "validation"):
            assert numbers[name][kind] == expected[name][kind]
        for seed in (0, 1):
            first, second = (load_run(one / "experiments" / name / f"seed-{seed}") for one in (done, out))
            assert np.array_equal(first.predictions()["test_logits"], second.predictions()["test_logits"])
    assert not [path for path in out.rglob("*") if "unfinished" in path.name or path.name == "checkpoints"]


def test_a_finished_table_is_left_as_it_is(finished: tuple[Path, Path]) -> None:
    table, out = finished
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    with pytest.raises(RecipeError, match=r"nothing is missing[\s\S]*mi2p report[\s\S]*--overwrite"):
        run(table, out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_other_settings_are_another_table(finished: tuple[Path, Path], tmp_path: Path) -> None:
    table, out = finished
    for more in ({"given": {"max_steps": 3}}, {"smoke": True}, {"encoders": "demo"}):
        with pytest.raises(RecipeError, match="differ"):
            run(table, out, seeds=(0, 1, 2), **more)
    changed = tuple(
        replace(one, settings={**one.settings, "dropout": 0.5}) if one.name == "clip-image" else one
        for one in TABLE.experiments
    )
    with pytest.raises(RecipeError, match=r"seed-0 was trained with other settings \(dropout differ\)"):
        run(table, out, seeds=(0, 1, 2), experiments=replace(TABLE, experiments=changed))
    assert not (out / "experiments" / "clip-image" / "seed-2").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"encoders": "large"}, "paper, demo, tiny"),
        ({"only": ["resnet", "gmu"]}, "no experiment gmu"),
        ({"encoders": "paper", "only": []}, "densenet121|resnet50|bert|ViT"),  # no hub: found out before any training
        (  # the last line does not fit: found out before the first is trained
            {"experiments": TABLES[3], "only": ["vision", "vilt"], "given": {"image_size": 40}},
            "whole number of patches",
        ),
    ],
)
def test_mistakes_are_named(finished: tuple[Path, Path], tmp_path: Path, more: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        run(finished[0], tmp_path / "out", seeds=(0,), **more)
    assert not (tmp_path / "out").exists()


def test_a_table_needs_both_modalities(tmp_path: Path) -> None:
    lines = ["text,label", *(f"thing {i},{'ab'[i % 2]}" for i in range(60))]
    (tmp_path / "words.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(RecipeError, match="images, texts and a test split"):
        run(tmp_path / "words.csv", tmp_path / "out")


def test_a_smoke_run_takes_a_few_samples(finished: tuple[Path, Path], tmp_path: Path) -> None:
    own = tuple(replace(one, settings={**one.settings, "epochs": 2}) for one in TABLE.experiments)  # its own schedule
    more: dict[str, Any] = {"experiments": replace(TABLE, experiments=own), "given": {"epochs": 3}}
    numbers = run(finished[0], tmp_path / "out", seeds=(0,), only=["clip-image"], smoke=True, **more)
    assert numbers["smoke"]
    assert numbers["data"]["splits"] == {"train": 48, "validation": 12, "test": 12}
    saved = load_run(tmp_path / "out" / "experiments" / "clip-image" / "seed-0")
    assert saved.config.optimisation.epochs == 1
    assert (tmp_path / "out" / "table.md").read_text().count("SMOKE") == 1
