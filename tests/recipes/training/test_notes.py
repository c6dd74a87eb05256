"""What a training notes that it takes no notice of: options that change nothing of a model, and ends of texts."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from training_runs import SMALL as TINY

from mi2p_inject.recipes.config import PRESETS, make_config
from mi2p_inject.recipes.config.unused import unused_notes
from mi2p_inject.recipes.evaluation.evaluate import evaluate_run, predict_file
from mi2p_inject.recipes.saving.saved import load_run
from mi2p_inject.recipes.systems import SYSTEMS, SystemModel, build_system
from mi2p_inject.recipes.tasks import SingleLabel
from mi2p_inject.recipes.training.train import load_encoders, train_run

SMALL = {**TINY, "text": "tiny:bert"}
CHANGED: dict[str, Any] = {
    "unit": "cross-attention",
    "unit_options": {"num_heads": 1},
    "zero_init": "channel",
    "vision_layers": [0],
    "text_layers": [0],
    "fusion": "gmu",
    "fusion_options": {"width": 7},
    "branch_loss": True,
    "trainable": "units",
    "vision_freeze": ["*"],
    "text_freeze": ["*"],
    "dropout": 0.3,
}
BESIDE: dict[str, dict[str, Any]] = {
    "unit_options": {"unit": "mi2p"},
    "branch_loss": {"fusion": "gmu"},
    "fusion_options": {"fusion": "gmu"},
}
"""What another option has to be for this one to count."""


def look(model: str, **more: Any) -> tuple[str, dict[str, float], set[str]]:
    """What there is of a model: its modules, a number of each of its tensors, and which of them train."""
    config = make_config({"data": "my.csv", "model": model, **SMALL, **more})
    torch.manual_seed(0)
    built: SystemModel = build_system(config, load_encoders(config), SingleLabel(("a", "b")))
    values = {name: one.double().abs().sum().item() for name, one in built.state_dict().items()}
    return repr(built), values, {name for name, one in built.named_parameters() if one.requires_grad}


@pytest.mark.parametrize("model", SYSTEMS)
def test_what_is_noted_changes_nothing_and_all_else_something(model: str) -> None:
    plain = look(model)
    for option, value in CHANGED.items():
        beside = BESIDE.get(option, {})
        with_it, without = ({"data": "my.csv", "model": model, **beside, **more} for more in ({option: value}, {}))
        changes = look(model, **beside, **{option: value}) != (look(model, **beside) if beside else plain)
        noted = unused_notes(make_config(with_it)) != unused_notes(make_config(without))
        assert changes is not noted, option


@pytest.mark.parametrize("model", SYSTEMS)
def test_the_presets_and_the_defaults_get_no_note(model: str) -> None:
    for preset in PRESETS:
        assert unused_notes(make_config({"data": "my.csv", "model": model}, preset=preset)) == ()


@pytest.mark.fault("terminal", "an option that the chosen model takes no notice of", "a note names it")
def test_a_training_notes_what_its_model_takes_no_notice_of(table: Path, tmp_path: Path) -> None:
    chosen = {"unit": "film", "text_layers": [-1], "vision_layers": [-1], "epochs": 1, "max_steps": 1}
    config = make_config({"data": str(table), "model": "mmbt", **SMALL, **chosen})
    with Console(record=True, width=200, file=io.StringIO()) as console:
        numbers = train_run(config, tmp_path / "run", console)
    line = "model 'mmbt' takes no notice of unit, vision_layers, text_layers"
    assert line in console.export_text()
    assert line in str(numbers)


@pytest.mark.fault("tables", "texts of more tokens than are read", "a note says how many")
def test_a_training_notes_texts_that_are_cut(table: Path, tmp_path: Path) -> None:
    config = make_config({"data": str(table), "model": "text", **SMALL, "max_length": 4, "epochs": 1, "max_steps": 1})
    with Console(record=True, width=200, file=io.StringIO()) as console:
        numbers = train_run(config, tmp_path / "run", console)
    line = "texts have more than max_length=4 tokens: what is beyond is not read"
    assert f"training {line}" in console.export_text()
    assert line in str(numbers)
    run = load_run(tmp_path / "run")
    asked = table.with_name("asked.csv")
    asked.write_text("id,text\na,one two three four five\nb,one\nc,\nd,six seven eight nine ten\n")
    answers = predict_file(run, str(asked), {})
    assert len(list(answers)) == len(list(answers)) == 4  # what is counted is of one iteration
    assert [one for one in answers.notes if "max_length" in one] == [
        "2 of 4 records have a text of more than max_length=4 tokens: what is beyond is not read (such as a, d)"
    ]
    new = table.with_name("new.csv")
    new.write_text("text,label\none two three four five,red\none,blue\n")
    assert f"1 of 2 test {line}" in evaluate_run(run, str(new), {})["notes"]
