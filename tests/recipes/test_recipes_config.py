"""Settings: presets, what overrides what, and that a mistake is named."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from mi2p_inject.recipes.config import PRESETS, Config, make_config, parse_assignments, read_yaml
from mi2p_inject.recipes.errors import RecipeError

DATA = {"data": "my.csv"}


def test_later_settings_win() -> None:
    config = make_config({**DATA, "epochs": 3, "rate": 0.1}, {"epochs": 4}, parse_assignments(["epochs=5"]))
    assert (config.epochs, config.rate) == (5, 0.1)


@pytest.mark.parametrize(
    ("data", "task", "batch", "epochs", "rate"),
    [  # Table 2 of the paper
        ("crisismmd:/d", "informative", 128, 50, 3.5e-5),
        ("crisismmd:/d", "humanitarian", 128, 40, 2.5e-5),
        ("crisismmd:/d", "damage", 128, 40, 5e-5),
        ("food101:/d", None, 256, 100, 7.5e-5),
        ("mmimdb:/d", None, 128, 80, 5e-5),
    ],
)
def test_paper_preset(data: str, task: str | None, batch: int, epochs: int, rate: float) -> None:
    config = make_config({"data": data, "task": task}, preset="paper")
    assert (config.batch_size, config.epochs, config.rate, config.rate_new) == (batch, epochs, rate, rate)
    assert (config.optimizer, config.schedule, config.warm_up, config.patience) == ("adam", "constant", 0.0, 0)
    assert (config.unit, config.gate, config.train_backbone) == ("mi2p-paper", "none", True)


def test_what_is_given_overrides_the_paper() -> None:
    config = make_config({"data": "food101:/d", "epochs": 2, "rate": 1e-3}, preset="paper")
    assert (config.batch_size, config.epochs, config.rate, config.rate_new) == (256, 2, 1e-3, 1e-3)


@pytest.mark.parametrize("preset", PRESETS)
def test_all_settings_as_yaml_and_back(preset: str, tmp_path: Path) -> None:
    config = make_config({**DATA, "vision_layers": [0, -1, "2/4"]}, preset=preset)
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(config.to_json()))
    assert make_config(read_yaml(file)) == config


def test_values_are_read_as_yaml() -> None:
    given = parse_assignments(["rate=1e-4", "vision_layers=[0, -1]", "text_layers=encoder.*", "gate=none", "task=null"])
    config = make_config(DATA, given)
    assert (config.rate, config.vision_layers, config.text_layers) == (1e-4, (0, -1), ("encoder.*",))
    assert (config.gate, config.task) == ("none", None)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"zzzzzz": 3}, "settings are"),
        ({"model": "me-visoin"}, "did you mean 'me-vision'"),
        ({"fusion": "attention"}, "score, concat, cross-attention"),
        ({"epochs": "many"}, "wrong type"),
        ({"epochs": 2.5}, "wrong type"),
        ({"epochs": True}, "wrong type"),
        ({"augment": "yes please"}, "wrong type"),
        ({"rate": "fast"}, "wrong type"),
        ({"vision_layers": {"a": 1}}, "list of layer names"),
        ({"vision_layers": []}, "list of layer names"),
        ({"epochs": 0}, "more than 0"),
        ({"rate": float("nan")}, "more than 0"),
        ({"warm_up": 1.0}, "0 up to 1"),
        ({"seed": -1}, "0 or more"),
        ({"image_size": 3}, "8 to 4096"),
        ({"data": ""}, "no data named"),
    ],
)
def test_mistakes_are_named(given: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        make_config(DATA, given)


def test_files_and_assignments_that_cannot_be_read(tmp_path: Path) -> None:
    for content, words in (("a: [", "not YAML"), ("- a", "no mapping"), ("3: 4", "no mapping")):
        (tmp_path / "c.yaml").write_text(content)
        with pytest.raises(RecipeError, match=words):
            read_yaml(tmp_path / "c.yaml")
    with pytest.raises(RecipeError, match="cannot read"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert read_yaml(tmp_path / "empty.yaml") == {}
    for assignment, words in (("epochs", "name=value"), ("epochs=[", "not YAML")):
        with pytest.raises(RecipeError, match=words):
            parse_assignments([assignment])
    with pytest.raises(RecipeError, match="practical or paper"):
        make_config(DATA, preset="papper")


def test_every_setting_is_explained() -> None:
    described = str(Config.__doc__)
    for field in fields(Config):
        assert field.name in described, field.name
