"""Columns of a table as a third modality of a training: statistics of the training split, bad input, missing cells."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from rich.console import Console
from training_runs import interrupted_at, losses
from typer.testing import CliRunner

from mi2p_inject.core.errors import Mi2pError
from mi2p_inject.recipes import fit, load_run
from mi2p_inject.recipes.cli.app import app
from mi2p_inject.recipes.config import make_config
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.export.graph import ExportableModel
from mi2p_inject.recipes.saving.saved import collator_of, save_trained
from mi2p_inject.recipes.systems import SYSTEMS, build_system
from mi2p_inject.recipes.systems.columns import load_columns
from mi2p_inject.recipes.tasks import TASKS
from mi2p_inject.recipes.training import train as training
from mi2p_inject.recipes.training.train import load_encoders, load_samples, train_run
from mi2p_inject.sources.columns import Columns
from mi2p_inject.testing.randomize import randomize_zero_parameters

MODELS = {"vision": "tiny:resnet", "text": "tiny:xlnet"}
TINY: dict[str, Any] = {**MODELS, "image_size": 32, "max_steps": 3, "batch_size": 8}
READ: dict[str, Any] = {"numeric_cols": ["price", "size"], "categorical_cols": "town"}
TOWNS = ("Bern", "Chur", "")


def table() -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    pictures = [Image.fromarray(random.integers(0, 255, (32, 32, 3), dtype=np.uint8)) for _ in range(40)]
    return [
        {
            "image": picture,
            "text": f"thing {number}",
            "label": "even" if number % 2 == 0 else "odd",
            "price": None if number % 5 == 0 else 3.5 * number,
            "size": number,
            "town": TOWNS[number % 3],
            "kind": number % 4,
        }
        for number, picture in enumerate(pictures)
    ]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table whose pictures lie beside it."""
    folder = tmp_path_factory.mktemp("columns")
    rows = table()
    for number, row in enumerate(rows):
        row["image"].save(folder / f"{number}.png")
        row["image"] = f"{number}.png"
    pandas.DataFrame(rows).to_csv(folder / "all.csv", index=False)
    return folder / "all.csv"


@pytest.fixture(scope="module")
def run(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("runs") / "columns"
    return fit(saved, "me-vision", out=out, verbose=False, unit_learning_rate=0.1, **TINY, **READ)


def test_statistics_are_those_of_the_training_split_alone(run: Any, saved: Path) -> None:
    samples = load_samples(run.saved.config)
    rows = pandas.read_csv(saved)
    train = rows.iloc[[int(name) - 1 for name in samples.splits["train"]["id"][:]]]
    found = Columns.load(run.path / "model" / "columns.json")
    for name in ("price", "size"):
        there = train[name].dropna()
        assert found.numeric[name] == (pytest.approx(there.mean()), pytest.approx(there.std(ddof=0)))
        assert there.mean() != rows[name].mean()
    assert found.categorical == {"town": ("Bern", "Chur")}
    assert run.saved.columns() == found


def test_answers_depend_on_the_cells(run: Any) -> None:
    rows = [{name: cell for name, cell in row.items() if name != "label"} for row in table()[:8]]
    as_is = run.predict_proba(rows)
    assert np.array_equal(as_is, load_run(run.path).predict_proba(rows))
    for changed in ({"price": 1e4}, {"town": "Chur"}, {"price": None, "size": None, "town": None}):
        assert not np.allclose(as_is, run.predict_proba([{**row, **changed} for row in rows]))
    unseen = [run.predict_proba([{**row, "town": town} for row in rows]) for town in ("Olten", "Thun")]
    assert np.array_equal(*unseen)  # a category that training did not have is one and the same
    assert run.embed(rows).shape == (8, run.model.branches["image"].encoder.width)


def test_the_folder_goes_elsewhere(run: Any, tmp_path: Path) -> None:
    copy = shutil.copytree(run.path, tmp_path / "copy")
    rows = table()[:4]
    assert np.array_equal(load_run(copy).predict_proba(rows), run.predict_proba(rows))
    assert not [path for path in copy.rglob("*") if path.suffix in (".pkl", ".bin", ".pt")]


def test_a_sample_without_cells_is_answered(run: Any, saved: Path) -> None:
    """A folder of pictures has no columns: that source is missing, and the others are read."""
    found = run.predict_proba(str(shutil.copytree(saved.parent, saved.parent.parent / "bare", ignore=_tables)))
    batch = {**_batch(run, table()[:2]), "columns_present": torch.tensor([True, False])}
    other = {**batch, "column_numbers": batch["column_numbers"] + 1}
    with torch.no_grad():
        logits = [run.model(**one)["logits"] for one in (batch, other)]
    assert len(found) == 40
    assert not torch.equal(logits[0][0], logits[1][0])
    assert torch.equal(logits[0][1], logits[1][1])  # nothing of absent cells reaches the answer


def _tables(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name.endswith(".csv")]


def _batch(run: Any, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return next(run._asked(rows, {}).scores[0].batches())


def test_evaluation_is_of_the_same_columns(run: Any, saved: Path) -> None:
    assert run.evaluate()["samples"] == run.numbers["splits"]["test"]
    rows = pandas.read_csv(saved)
    rows.to_csv(new := saved.parent / "new.csv", index=False)
    assert run.evaluate(str(new))["samples"] == len(rows)
    new.unlink()
    with pytest.raises(RecipeError, match="'numeric_cols' is no option of new data"):
        run.evaluate(str(saved), numeric_cols=["kind"])
    kept = saved.read_text()
    try:
        saved.write_text(kept.replace(",3.5,", ",4.5,"))
        with pytest.raises(RecipeError, match="is not what it was"):
            run.evaluate()
    finally:
        saved.write_text(kept)


def test_the_reading_check_counts_columns_as_one(run: Any) -> None:
    assert set(run.numbers["reading"]["modalities"]) == {"text", "columns"}
    assert any("the columns are worth" in remark for remark in run.numbers["remarks"])


@pytest.mark.parametrize("model", [name for name in SYSTEMS if SYSTEMS[name].attends])
def test_every_expanded_model_reads_them(model: str, tmp_path: Path) -> None:
    config = make_config({"data": "any", "model": model, "categorical_cols": ["town"], **TINY})
    columns = Columns.fit(table(), categorical=["town"])
    encoders, task = load_encoders(config), TASKS["single-label"](("even", "odd"))
    built = build_system(config, encoders, task, columns=columns).eval()
    randomize_zero_parameters(built, strength=1.0)
    collator = collator_of(config.model.system, encoders, task, columns=columns)
    samples = [{"id": None, "pixels": torch.rand(3, 32, 32), "text": "a thing", "label": 0} for _ in range(2)]
    batches = [collator([{**one, "cells": ([], [town])} for one in samples]) for town in ("Bern", "Chur")]
    assert not torch.allclose(*(built.logits(batch) for batch in batches))
    absent = [{**batch, "columns_present": torch.zeros(2, dtype=torch.bool)} for batch in batches]
    assert torch.equal(*(built.logits(batch) for batch in absent))
    save_trained(built, encoders, tmp_path, columns)
    assert load_columns(tmp_path / "columns.json", config.data) == columns


def test_a_cached_and_a_tuned_source_stand_beside_them(run: Any, saved: Path, tmp_path: Path) -> None:
    given = {**TINY, **READ, "unit_learning_rate": 0.1, "source_cache": str(tmp_path / "cache"), "dropout": 0.1}
    cached = fit(saved, "me-vision", out=tmp_path / "cached", verbose=False, **given)
    np.testing.assert_allclose(losses(cached.path), losses(run.path), rtol=1e-5)
    tuned = fit(saved, "me-vision", out=tmp_path / "tuned", verbose=False, source="tuned", **TINY, **READ)
    alone = load_run(tuned.path / "sources" / "text")
    assert alone.saved.config.data.column_names == ()


def test_an_interrupted_run_goes_on(run: Any, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {**TINY, **READ, "data": str(saved), "model": "me-vision", "unit_learning_rate": 0.1, "save_steps": 1}
    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(training, "row_progress", interrupted_at(2))
        with pytest.raises(KeyboardInterrupt):
            train_run(make_config(given), out, Console(quiet=True))
    train_run(make_config(given), out, Console(quiet=True))
    np.testing.assert_allclose(losses(out), losses(run.path), rtol=1e-5)
    assert (out / "model/columns.json").read_bytes() == (run.path / "model/columns.json").read_bytes()


BAD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "absent": ({}, {"numeric_cols": ["prise"]}, r"no column 'prise'[\s\S]*did you mean 'price'"),
    "commas": ({}, {"numeric_cols": "price,size"}, r"no column 'price,size'[\s\S]*write a list: \[price,size\]"),
    "words": ({"price": "12 kg"}, READ, r"line 9: column 'price' is no finite number[\s\S]*'12 kg'[\s\S]*categorical"),
    "infinite": ({"price": "inf"}, READ, r"column 'price' is no finite number"),
    "label": ({}, {"categorical_cols": ["label"]}, r"'label' is the label column[\s\S]*leave it out"),
    "split": ({"split": "train"}, {"categorical_cols": ["split"]}, r"'split' is the split column[\s\S]*leave it out"),
    "twice": (
        {},
        {"numeric_cols": ["size"], "categorical_cols": ["size"]},
        r"'size' is named twice[\s\S]*leave it out",
    ),
    "plain": ({}, {**READ, "model": "late-fusion"}, r"'late-fusion' reads no columns[\s\S]*me-vision"),
    "compared": ({}, {**READ, "model": "mmbt"}, r"'mmbt' reads no columns[\s\S]*fix"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_columns_are_refused_before_training(case: str, saved: Path, tmp_path: Path) -> None:
    cells, options, message = BAD[case]
    rows = pandas.read_csv(saved, dtype=object)
    for name, cell in cells.items():
        rows.loc[7, name] = cell
    path = saved.parent / f"{case}.csv"
    rows.to_csv(path, index=False)
    with pytest.raises(Mi2pError, match=message):
        fit(path, **{"model": "me-vision", "out": tmp_path / "run", "verbose": False, **TINY, **options})
    path.unlink()
    assert not (tmp_path / "run").exists()


def test_a_column_that_is_empty_in_training_is_refused(saved: Path, tmp_path: Path) -> None:
    rows = pandas.read_csv(saved)
    rows["split"] = ["train", "train", "test", "test"] * 10
    rows.loc[rows["split"] == "train", "price"] = math.nan
    rows.to_csv(path := saved.parent / "empty.csv", index=False)
    with pytest.raises(Mi2pError, match=r"'price' is missing in every row[\s\S]*leave it out"):
        fit(path, "me-vision", out=tmp_path / "run", verbose=False, **TINY, **READ)
    path.unlink()


def test_a_folder_of_pictures_has_no_columns(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (32, 32), (number, 0, 0)).save(tmp_path / "data" / label / f"{number}.png")
    with pytest.raises(RecipeError, match=r"has no columns to read[\s\S]*make a table"):
        fit(tmp_path / "data", "me-vision", out=tmp_path / "run", verbose=False, **TINY, **READ)


def test_a_new_table_without_a_column_is_refused(run: Any, saved: Path) -> None:
    rows = [{name: cell for name, cell in row.items() if name != "price"} for row in table()[:2]]
    with pytest.raises(RecipeError, match=r"no column 'price'[\s\S]*add it to the table, with empty cells"):
        run.predict(rows)
    with pytest.raises(Mi2pError, match="column 'price' is no finite number"):
        run.predict([{**row, "price": "dear"} for row in rows])


def test_a_file_of_other_columns_is_refused(run: Any, tmp_path: Path) -> None:
    copy = shutil.copytree(run.path, tmp_path / "copy")
    (copy / "model/columns.json").write_text(json.dumps({"width": 64}))
    with pytest.raises(Mi2pError):
        load_run(copy).predict(table()[:1])


def test_an_export_of_it_is_refused(run: Any) -> None:
    with pytest.raises(RecipeError, match=r"reads columns of a table[\s\S]*mi2p predict"):
        ExportableModel(run.saved)


def test_an_explanation_says_what_each_cell_is_worth(run: Any, tmp_path: Path) -> None:
    row = table()[1]
    cells = {name: row[name] for name in ("price", "size", "town")}
    found = run.explain(row["image"], row["text"], "odd", columns=cells)
    batches = [_batch(run, [{**row, **dict.fromkeys(left)}]) for left in ([], *([name] for name in cells))]
    with torch.no_grad():
        whole, *less = (float(run.model(**batch)["logits"][0, 1]) for batch in batches)
    assert list(found.column_loss.values()) == pytest.approx([whole - one for one in less], abs=1e-5)
    assert list(found.column_loss) == list(cells)
    assert set(found.without) == {"image", "text", "columns"}
    assert found.to_json()["column_loss"] == found.column_loss
    assert found.branches[0].word_evidence is not None
    found.save(tmp_path / "figure.png")
    assert run.explain(row["image"], row["text"]).column_loss == {}
    with pytest.raises(RecipeError, match=r"no column 'prise'[\s\S]*did you mean 'price'"):
        run.explain(row["image"], row["text"], columns={"prise": 3})


def test_one_sample_is_asked_about_in_the_shell(run: Any, saved: Path) -> None:
    image, sample = saved.parent / "1.png", ["--column", "price=3.5", "--column", "size=1", "--column", "town=Chur"]
    given = ["predict", str(run.path), "--image", str(image), "--text", "thing 1"]
    answers = [CliRunner().invoke(app, [*given, *more]) for more in (sample, [])]
    assert [one.exit_code for one in answers] == [0, 0]
    expected = run.predict_proba([table()[1]])[0]
    found = [list(json.loads(one.stdout)["probabilities"].values()) for one in answers]
    assert found[0] == pytest.approx(expected, abs=1e-5)
    assert found[1] != pytest.approx(expected, abs=1e-5)
    for more, message in ((["--column", "price"], "NAME=VALUE"), (["--column", "price=dear"], "no finite number")):
        refused = CliRunner().invoke(app, [*given, *more])
        assert refused.exit_code == 1
        assert message in refused.stderr
