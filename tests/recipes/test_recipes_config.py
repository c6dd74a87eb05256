"""Options: presets, what overrides what; each is written once and shows everywhere; a mistake is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from mi2p_inject.core.errors import UnitError
from mi2p_inject.fusion import FUSIONS
from mi2p_inject.recipes.cli.app import app
from mi2p_inject.recipes.config import OPTIONS, PRESETS, Config, make_config, parse_assignments, read_yaml, with_options
from mi2p_inject.recipes.config.config import GROUPS
from mi2p_inject.recipes.config.describe import settings_page, settings_text, settings_yaml
from mi2p_inject.recipes.config.names import INSTEAD
from mi2p_inject.recipes.config.option import options_of
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.systems import SYSTEMS
from mi2p_inject.recipes.tasks import TASKS
from mi2p_inject.units import UNITS

DATA = {"data": "my.csv"}


def test_later_settings_win() -> None:
    config = make_config({**DATA, "epochs": 3, "learning_rate": 0.1}, {"epochs": 4}, parse_assignments(["epochs=5"]))
    assert (config.optimisation.epochs, config.optimisation.learning_rate) == (5, 0.1)


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
    given, model = config.optimisation, config.model
    assert (given.batch_size, given.epochs, given.learning_rate, given.new_learning_rate) == (batch, epochs, rate, rate)
    assert (given.optimizer, given.schedule, given.warmup_ratio, given.patience) == ("adam", "constant", 0.0, 0)
    assert (model.unit, model.zero_init, model.trainable) == ("mi2p-paper", "none", "all")
    assert model.options_of_unit() == {"zero_init": None}
    assert (model.vision_layers, model.text_layers, model.branch_loss) == (("paper",), ("paper",), False)
    assert given.unit_learning_rate == rate


def test_what_is_given_overrides_the_paper() -> None:
    given = make_config({"data": "food101:/d", "epochs": 2, "learning_rate": 1e-3}, preset="paper").optimisation
    assert (given.batch_size, given.epochs, given.learning_rate, given.new_learning_rate) == (256, 2, 1e-3, 1e-3)
    assert given.unit_learning_rate == 1e-3
    assert make_config(DATA, {"new_learning_rate": 2e-3}, preset="paper").optimisation.unit_learning_rate == 2e-3


@pytest.mark.parametrize("preset", PRESETS)
def test_all_settings_as_yaml_and_back(preset: str, tmp_path: Path) -> None:
    config = make_config({**DATA, "vision_layers": [0, -1, "2/4"], "unit_options.num_heads": 4}, preset=preset)
    file = tmp_path / "c.yaml"
    for content in (yaml.safe_dump(config.to_json()), settings_yaml(config)):
        file.write_text(content)
        assert make_config(read_yaml(file)) == config


def test_values_are_read_as_yaml() -> None:
    given = ["learning_rate=1e-4", "vision_layers=[0, -1]", "text_layers=encoder.*", "zero_init=none", "task=null"]
    config = make_config(DATA, parse_assignments(given))
    assert config.optimisation.learning_rate == 1e-4
    assert (config.model.vision_layers, config.model.text_layers) == ((0, -1), ("encoder.*",))
    assert (config.model.zero_init, config.data.task) == ("none", None)


def test_options_of_the_unit_pass_through() -> None:
    assert make_config(DATA).model.options_of_unit() == {}  # a unit without zero_init can be trained
    given = {"unit_options": {"head_dim": 16, "num_heads": 2}, "zero_init": "channel"}
    config = make_config(DATA, given, parse_assignments(["unit=mi2p", "unit_options.num_heads=4"]))
    assert config.model.options_of_unit() == {"head_dim": 16, "num_heads": 4, "zero_init": "channel"}
    assert make_config(config.to_json()) == config
    assert with_options(config, {"unit_options": {}}).model.options_of_unit() == {"zero_init": "channel"}
    with pytest.raises(UnitError, match="did you mean 'num_heads'"):
        make_config(DATA, {"unit_options": {"num_head": 2}})
    with pytest.raises(RecipeError, match="unit has no entries"):
        make_config(DATA, {"unit.num_heads": 2})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"zzzzzz": 3}, "options are"),
        ({"model": "me-visoin"}, "did you mean 'me-vision'"),
        ({"fusion": "attention"}, "score, concat, cross-attention"),
        ({"fusion": "scores"}, "did you mean 'score'"),
        ({"unit": "mi2q"}, "did you mean 'mi2p'"),
        ({"metric": "macro_f"}, "did you mean 'macro_f1'"),
        ({"problem_type": "multi_label"}, "did you mean 'multi-label'"),
        ({"fusion": "cross-attention", "fusion_options": {"widht": 8}}, "did you mean 'width'"),
        ({"fusion": "score", "fusion_options.width": 8}, "no options"),
        ({"zero_init": "value"}, "did you mean 'value_proj'"),
        ({"epochs": "many"}, "wrong type"),
        ({"epochs": 2.5}, "wrong type"),
        ({"epochs": True}, "wrong type"),
        ({"augment": "yes please"}, "wrong type"),
        ({"learning_rate": "fast"}, "wrong type"),
        ({"unit_options": 3}, "num_heads: 4"),
        ({"vision_layers": {"a": 1}}, r"vision_layers=\[0, -1\], or names"),
        ({"vision_layers": []}, r"vision_layers=\[0, -1\], or names"),
        ({"numeric_cols": []}, r"write numeric_cols=\[first, second\]"),
        ({"epochs": 0}, "more than 0"),
        ({"learning_rate": float("nan")}, "more than 0"),
        ({"text_learning_rate": 0}, "more than 0"),
        ({"warmup_ratio": 1.0}, "0 up to 1"),
        ({"seed": -1}, "0 or more"),
        ({"image_size": 3}, "8 to 4096"),
        ({"data": ""}, "no data named"),
    ],
)
def test_mistakes_are_named(given: dict[str, object], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        make_config(DATA, given)


@pytest.mark.parametrize("name", INSTEAD)
def test_another_name_is_answered_with_the_right_one(name: str) -> None:
    answer = INSTEAD[name]
    assert name not in OPTIONS
    assert answer in OPTIONS or " " in answer
    with pytest.raises(RecipeError) as error:
        make_config(DATA, {name: 1})
    assert f"no option is called {name!r}" in str(error.value)
    assert f"it is called {answer!r}" in str(error.value) or answer in str(error.value)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("rate_new", "it is called --new-learning-rate"),
        ("lr", "it is called --learning-rate"),
        ("train", "it is called --trainable"),
        ("max_epochs", "it is called --epochs"),
        ("d_k", "write --set unit_options.head_dim=32"),
        ("fp16", "write --precision fp16"),
        ("multi_label", "write --problem-type single-label or multi-label"),
        ("wandb", "write --log wandb"),
        ("device", "CUDA_VISIBLE_DEVICES"),
        ("cpu", "CUDA_VISIBLE_DEVICES"),
        ("resume", "goes on by itself"),
    ],
)
def test_the_command_line_answers_too(name: str, shown: str) -> None:
    answer, typed = INSTEAD[name], f"--{name.replace('_', '-')}"
    result = CliRunner().invoke(app, ["train", "--data", "my.csv", "--out", "run", typed, "1"])
    assert result.exit_code == 1
    assert typed in result.output
    assert shown in result.output
    assert (f"--{answer.replace('_', '-')}" if answer in OPTIONS else answer.split("=")[-1]) in result.output


@pytest.mark.parametrize("command", ["eval", "predict", "report", "explain"])
def test_commands_without_options_of_a_training_answer_what_they_can(command: str) -> None:
    device = CliRunner().invoke(app, [command, "run", "--device", "cuda"])
    assert (device.exit_code, "CUDA_VISIBLE_DEVICES" in device.output) == (1, True)
    assert "No such option" in CliRunner().invoke(app, [command, "run", "--lr", "1"]).output  # nor another name


def test_hyphens_are_the_command_lines() -> None:
    with pytest.raises(RecipeError, match="it is called 'learning_rate'"):
        make_config(DATA, {"learning-rate": 1e-4})


@pytest.mark.parametrize(
    ("table", "option"), [(UNITS, "unit"), (FUSIONS, "fusion"), (SYSTEMS, "model"), (TASKS, "problem_type")]
)
def test_choices_come_from_their_tables(table: dict[str, object], option: str) -> None:
    assert OPTIONS[option].choices == tuple(table)
    for name in table:
        assert make_config(DATA, {option: name}).to_json()[option] == name


def test_files_and_assignments_that_cannot_be_read(tmp_path: Path) -> None:
    for content, words in (
        ("a: [", "not YAML"), ("- a", "no mapping"), ("3: 4", "no mapping"),
        ("epochs: 3\nseed: 1\nepochs: 4", "'epochs' is given twice"),
        ("unit_options:\n  num_heads: 2\n  num_heads: 4", "'num_heads' is given twice"),
    ):  # fmt: skip
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


@pytest.fixture(scope="module")
def shown() -> str:
    """``mi2p train --help``."""
    wide = {"COLUMNS": "800", "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(app, ["train", "--help"], env=wide).output


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_is_written_once_and_shows_everywhere(name: str, shown: str) -> None:
    option = OPTIONS[name]
    assert sum(name in options_of(group) for group in GROUPS.values()) == 1
    assert option.help
    assert not option.help[0].isupper()
    assert not option.help.endswith(".")
    if option.default is not None:
        assert option.read(option.default) == option.default
    config = make_config(DATA)
    assert f"--{name.replace('_', '-')}" in shown
    for choice in option.choices:
        assert choice in shown
    for page in (settings_text(config), settings_yaml(config), settings_page()):
        assert name in page
        assert option.help.replace("|", "") in page.replace("\\|", "").replace("|", "")
        assert all(choice in page for choice in option.choices)


def test_values_typed_in_a_shell(tmp_path: Path) -> None:
    typed = [
        "--learning-rate", "1e-4", "--no-pretrained", "--vision-layers", "[0, -1]", "--unit-options", "{num_heads: 2}",
        "--label-col", "1", "--image-size", "null",
    ]  # fmt: skip
    found: list[Config] = []

    from mi2p_inject.recipes.cli.config_options import given_options, merged, takes_options

    def command(**options: object) -> None:
        found.append(merged(None, {**DATA, **given_options(options)}, [], "practical"))

    import typer

    own = typer.Typer()
    own.command()(takes_options(command))
    result = CliRunner().invoke(own, typed)
    assert result.exit_code == 0, result.output
    (config,) = found
    assert config.changed() == {
        **DATA, "label_col": "1", "learning_rate": 1e-4, "pretrained": False, "vision_layers": [0, -1],
        "unit_options": {"num_heads": 2},
    }  # fmt: skip
