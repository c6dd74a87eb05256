"""`fit` and `load_run`: the same as the commands, on tables in memory."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pytest
from PIL import Image
from recipes_data import write_table
from training_runs import SMALL

from mi2p_inject.recipes import Run, fit, load_run
from mi2p_inject.recipes.data.tables.in_memory import IN_MEMORY, as_file, called
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.evaluation.evaluate import evaluate_run, predict_file
from mi2p_inject.recipes.evaluation.page.write import html_page
from mi2p_inject.recipes.evaluation.run_report import run_markdown
from mi2p_inject.recipes.saving.hub import portable
from mi2p_inject.recipes.saving.saved import load_run as read_back

SHORT: dict[str, Any] = {**SMALL, "epochs": 1, "max_steps": 3, "verbose": False}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def frame(table: Path) -> pandas.DataFrame:
    """With pictures in the cells of every second row, absolute paths in the others."""
    found = pandas.read_csv(table, dtype=str)
    cells: list[Any] = []
    for row, cell in enumerate(found["image"]):
        path = str(table.parent / cell) if isinstance(cell, str) else None
        cells.append(Image.open(path).copy() if path and row % 2 else path)
    return found.assign(image=pandas.Series(cells, dtype=object))


@pytest.fixture(scope="module")
def run(frame: pandas.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fit(frame, "me-vision", out=tmp_path_factory.mktemp("runs") / "run", **SHORT)


def test_a_table_in_memory_trains_as_its_file_does(run: Run, table: Path, tmp_path: Path) -> None:
    other = fit(str(table), "me-vision", out=tmp_path / "run", **SHORT)
    first, second = (one.saved.predictions() for one in (run, other))
    assert all((first[name] == second[name]).all() for name in first)
    assert run.numbers["test"] == other.numbers["test"]


@pytest.mark.parametrize("kind", ["pandas", "datasets", "list", "file"])
def test_answers_are_those_of_the_command(kind: str, run: Run, frame: pandas.DataFrame, table: Path) -> None:
    given: Any = {
        "pandas": lambda: frame,
        "datasets": lambda: datasets.Dataset.from_list(
            [{**row, "image": png(row["image"])} for row in without_nan(frame)]
        ).cast_column("image", datasets.Image()),
        "list": lambda: frame.to_dict("records"),
        "file": lambda: table,
    }[kind]()
    answers = list(predict_file(read_back(run.path), str(table), {}))
    labels, probabilities = run.predict(given), run.predict_proba(given)
    assert labels.tolist() == [answer["label"] for answer in answers]
    expected = [list((answer["probabilities"] or dict.fromkeys(run.classes, np.nan)).values()) for answer in answers]
    assert probabilities == pytest.approx(np.array(expected, dtype=float), abs=1e-6, nan_ok=True)
    assert probabilities.shape == (len(frame), len(run.classes))


def without_nan(frame: pandas.DataFrame) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return found


def png(cell: Any) -> dict[str, Any] | None:
    if not isinstance(cell, (str, Image.Image)):
        return None
    buffer = io.BytesIO()
    (Image.open(cell) if isinstance(cell, str) else cell).save(buffer, "PNG")
    return {"path": None, "bytes": buffer.getvalue()}


def test_numbers_are_those_of_the_command(run: Run, table: Path) -> None:
    assert run.evaluate() == evaluate_run(read_back(run.path), None, {})
    new = table.with_name("new.csv")
    new.write_text("\n".join(table.read_text().splitlines()[:30]) + "\n")
    assert run.evaluate(new, split="train")["samples"] == 29


def test_other_names_of_columns_are_those_of_the_training(frame: pandas.DataFrame, tmp_path: Path) -> None:
    named = frame.rename(columns={"image": "picture"})
    run = fit(named, "vision", image_col="picture", out=tmp_path / "run", **SHORT)
    new = named.drop(index=0)
    assert run.evaluate(new)["metrics"] == run.evaluate(new, image_col="picture")["metrics"]


def test_the_model_is_loaded_once(run: Run) -> None:
    assert run.model is run.model
    assert not run.model.training
    assert run.backbone is run.model.branches["image"].network.backbone


def test_vectors(run: Run, frame: pandas.DataFrame) -> None:
    vectors = run.embed(frame)
    assert vectors.shape == (len(frame), run.model.fusion.widths[0])
    head = run.model.fusion.heads[0]
    logits = vectors @ head.weight.detach().cpu().numpy().T + head.bias.detach().cpu().numpy()
    logits /= run.saved.decision["temperature"]
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    found = run.predict_proba(frame)
    there = ~np.isnan(found[:, 0])
    assert (exp / exp.sum(axis=1, keepdims=True))[there] == pytest.approx(found[there], abs=1e-5)


def test_it_shows_itself(run: Run) -> None:
    assert "me-vision" in repr(run)
    assert "accuracy" in repr(run)
    page = run._repr_html_()
    assert "<table>" in page
    assert "<td>macro-F1</td>" in page


def test_data_in_memory_are_named_so(run: Run) -> None:
    """Not by the file in a cache, where their owner never looked."""
    assert called(Path(run.saved.config.data.data)) == IN_MEMORY
    card = (run.path / "README.md").read_text(encoding="utf-8")
    for text in (run_markdown(run.saved), html_page(run.saved), card):
        assert IN_MEMORY in text
    with portable(run.path, run.saved.config, run.numbers) as ready:
        assert json.loads((ready.folder / "run.json").read_text())["config"]["data"] == IN_MEMORY


def test_it_is_read_back_and_not_trained_again(run: Run, frame: pandas.DataFrame) -> None:
    again = load_run(run.path)
    assert again.predict_proba(frame) == pytest.approx(run.predict_proba(frame), nan_ok=True)
    with pytest.raises(RecipeError, match="finished run"):
        fit(frame, "me-vision", out=run.path, **SHORT)


def test_several_labels(tmp_path: Path) -> None:
    rows = [{"text": f"a thing {i}", "label": [["a", "b"][i % 2], "c"][: 1 + i % 3 % 2]} for i in range(60)]
    run = fit(rows, "text", out=tmp_path / "run", **SHORT)
    assert run.saved.task.multi_label
    labels = run.predict([{"text": "a thing"}, {"text": None}])
    assert isinstance(labels[0], list)
    assert labels[1] is None
    assert np.isnan(run.predict_proba([{"text": ""}])).all()


def test_runs_get_folders_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"text": f"a thing {i}", "label": "ab"[i % 2]} for i in range(40)]
    assert [fit(rows, "text", **SHORT).path for _ in range(2)] == [Path("runs/text-1"), Path("runs/text-2")]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (5, "type int cannot be read"),
        ([], "no rows"),
        ([1, 2], "type list cannot be read"),
        ([{"text": f"a thing {i}", "label": i / 2} for i in range(20)], "^the data in memory: the labels are floats"),
        ([{"image": 5.5, "label": "a"}], "row 0: column 'image' holds a float"),
        ("nowhere.csv", "does not exist"),
        ([{"text": object(), "label": "a"}], "cannot be stored"),
    ],
    ids=["number", "nothing", "numbers", "floats", "no picture", "no file", "no type of Arrow"],
)
def test_bad_data(data: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=words):
        fit(data, out=tmp_path / "run", verbose=False)
    assert not (tmp_path / "run").exists()


def test_bad_settings(frame: pandas.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'epochs'"):
        fit(frame, epoch=3, out=tmp_path / "run")
    with pytest.raises(RecipeError, match="did you mean 'me-vision'"):
        fit(frame, "me-visoin", out=tmp_path / "run")


@pytest.mark.parametrize("path", [5, None, {}, b"run", "", " "])
def test_what_is_no_path(path: Any, frame: pandas.DataFrame) -> None:
    with pytest.raises(RecipeError, match="named by a string or a path"):
        load_run(path)
    if path is not None:
        with pytest.raises(RecipeError, match="named by a string or a path"):
            fit(frame, "text", text="tiny:bert", epochs=1, out=path, verbose=False)


@pytest.mark.parametrize("spec", ["food101:~nobody-of-this-name/x", "", " "])
def test_data_of_nobody(spec: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError):
        fit(spec, "text", text="tiny:bert", epochs=1, out=tmp_path / "run", verbose=False)


def test_a_picture_of_nobody(tmp_path: Path) -> None:
    rows = [{"image": "~nobody-of-this-name/a.png", "text": f"text {i}", "label": "ab"[i % 2]} for i in range(20)]
    with pytest.raises(RecipeError, match="missing file"):
        fit(rows, "vision", vision="tiny:resnet", epochs=1, out=tmp_path / "run", verbose=False)


def test_equal_data_are_one_file(frame: pandas.DataFrame, tmp_path: Path) -> None:
    first, second = (as_file(frame.copy(), folder=tmp_path) for _ in range(2))
    assert first == second
    changed = frame.copy()
    changed.loc[0, "text"] = "another"
    assert as_file(changed, folder=tmp_path) != first


def test_it_explains_an_answer(run: Run, frame: pandas.DataFrame, tmp_path: Path) -> None:
    picture = next(cell for cell in frame["image"] if isinstance(cell, Image.Image))
    found = run.explain(picture, "a crimson thing")
    found.save(tmp_path / "seen.png")
    assert (tmp_path / "seen.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(RecipeError, match="needs both"):
        run.explain(picture, " ")
