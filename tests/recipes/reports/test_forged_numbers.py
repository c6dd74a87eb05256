"""metrics.json and history.json from somebody else, with right checksums: an error of ours, or a report."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mi2p_inject.core.files.digest import file_digest
from mi2p_inject.recipes.api import Run
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.evaluation.page.figures import learning_curves
from mi2p_inject.recipes.evaluation.run_report import run_markdown
from mi2p_inject.recipes.saving.card import card_of
from mi2p_inject.recipes.saving.numbers_schema import history_fault, numbers_fault
from mi2p_inject.recipes.saving.run_folder import text_of
from mi2p_inject.recipes.saving.saved import SavedRun, load_run
from mi2p_inject.recipes.training.reading import mean_reading

GOLDEN = Path(__file__).parents[2] / "golden" / "run-3" / "run"
WRONG: tuple[Any, ...] = (None, 5, "", [5], {"x": 5}, 10**400)
READING = {
    "metric": "accuracy", "split": "validation", "samples": 4, "permutations": 3, "as_is": {"accuracy": 0.5},
    "modalities": {"text": {"withheld": 0.5, "shuffled": None, "worth": {"value": 0.1, "low": 0.0, "high": 0.2}}},
}  # fmt: skip


@pytest.fixture(scope="module")
def saved() -> SavedRun:
    found = load_run(GOLDEN)
    return replace(found, numbers={**found.numbers, "remarks": ["test: a remark"], "reading": READING})


def places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of each value in a JSON."""
    if before:
        yield before
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        yield from places(one, (*before, key))


def changed(numbers: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    found = copy.deepcopy(numbers)
    parent: Any = found
    for key in path[:-1]:
        parent = parent[key]
    if value is KeyError:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return found


def test_any_value_in_any_place_is_an_error_or_is_read(saved: SavedRun) -> None:
    """Whatever passes the schema, everything that reads the numbers can read."""
    numbers = {name: one for name, one in saved.numbers.items() if name != "config"}
    assert numbers_fault(numbers) is None
    refused = 0
    for path in places(numbers):
        for value in (KeyError, *WRONG):
            given = changed(numbers, path, value)
            if numbers_fault(given) is not None:
                refused += 1
                continue
            run = replace(saved, numbers=given)
            assert isinstance(run_markdown(run), str)
            assert isinstance(card_of(saved.config, given), str)
            assert isinstance(Run(run)._repr_html_(), str)
            if given.get("reading"):  # null where there was no validation split
                mean_reading([given["reading"]])
    assert refused > 100


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        (("encoders",), ["a"], "encoders"),
        (("parameters", "new"), "many", "parameters.new"),
        (("parameters", "new"), 10**400, "parameters.new"),
        (("test", "accuracy"), {"value": 1}, "test.accuracy.low"),
        (("baseline",), KeyError, "baseline"),
        (("splits",), {}, "splits.validation"),
        (("remarks",), [""], r"remarks\[0\]"),
        (("classes", 0), "a \x1b]0;owned\x07", r"classes\[0\]"),
        ((), None, "all of it"),
    ],
)
def test_the_place_is_named(path: tuple[Any, ...], value: Any, place: str, tmp_path: Path) -> None:
    run = shutil.copytree(GOLDEN, tmp_path / "run")
    numbers = json.loads((run / "metrics.json").read_text())
    forged(run, "metrics.json", changed(numbers, path, value) if path else value)
    with pytest.raises(RecipeError, match=rf"is damaged: metrics\.json: {place}\n  expected: .*\n  given: .*\n  fix: "):
        load_run(run)


@pytest.mark.fault("files", "a report of a run folder that is a pipe, a device or a terabyte", "RecipeError")
def test_a_report_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "table.md").write_text("# a table")
    assert text_of(tmp_path / "table.md") == "# a table"
    os.truncate(tmp_path / "table.md", 2**40)
    (tmp_path / "device.md").symlink_to("/dev/zero")
    for name in ("table.md", "device.md", "none.md"):
        with pytest.raises(RecipeError, match="cannot read"):
            text_of(tmp_path / name)


@pytest.mark.parametrize("history", [{"a": 1}, [{"step": "a"}], [{"step": 1, "loss": None}], [5], [{}], None])
def test_a_history_of_other_things(history: Any, tmp_path: Path) -> None:
    run = shutil.copytree(GOLDEN, tmp_path / "run")
    forged(run, "history.json", history)
    with pytest.raises(RecipeError, match=r"is damaged: history\.json: "):
        load_run(run).history()
    assert load_run(GOLDEN).history()


def test_numbers_that_no_axis_holds_are_left_out() -> None:
    history = [{"step": step, "loss": loss} for step, loss in enumerate([1e308, -1e308, float("nan"), 0.5])]
    assert history_fault(history) is None
    assert learning_curves(history, "accuracy", "accuracy", 1).startswith("<img")


@pytest.mark.parametrize(
    ("name", "value"), [("test_labels", 99), ("test_labels", -1), ("test_logits", np.nan), ("test_logits", np.inf)]
)
def test_predictions_of_no_class_or_no_number(name: str, value: float, tmp_path: Path) -> None:
    run = shutil.copytree(GOLDEN, tmp_path / "run")
    tensors = load_file(run / "predictions.safetensors")
    tensors[name][0] = value
    save_file(tensors, run / "predictions.safetensors")
    reseal(run)
    with pytest.raises(RecipeError, match=r"is damaged: predictions\.safetensors"):
        load_run(run).predictions()


def forged(run: Path, name: str, value: Any) -> None:
    (run / name).write_text(json.dumps(value))
    reseal(run)


def reseal(run: Path) -> None:
    """As a forger does, who can compute a checksum, too."""
    sums = json.loads((run / "checksums.json").read_text())
    (run / "checksums.json").write_text(json.dumps({name: file_digest(run / name) for name in sums}))
