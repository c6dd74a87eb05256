"""The declarations: experiments that can all be built, and figures of the paper that fit them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from published_files import crisis, imdb
from rich.console import Console

from mi2p_inject import ExpandedModel
from mi2p_inject.recipes.config import PRESETS
from mi2p_inject.recipes.data.formats.crisismmd import TASKS
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.experiments.experiment import Experiment, ExperimentSet
from mi2p_inject.recipes.experiments.runner import run_experiments
from mi2p_inject.recipes.experiments.sets.defaults import DEFAULTS
from mi2p_inject.recipes.experiments.sets.demo import DEMO
from mi2p_inject.recipes.experiments.sets.encoder_sets import ENCODERS
from mi2p_inject.recipes.experiments.sets.paper_tables import TABLES
from mi2p_inject.recipes.experiments.sets.pathway import PATHWAY
from mi2p_inject.recipes.saving.saved import load_run
from mi2p_inject.recipes.systems import build_system
from mi2p_inject.recipes.tasks import SingleLabel
from mi2p_inject.recipes.training.train import load_encoders

SETS = [DEMO, DEFAULTS, PATHWAY, *TABLES.values()]
EVERY = [(experiments, one) for experiments in SETS for one in experiments.experiments]
NAMES = {"image": "the image encoder", "text": "the text encoder"}


@pytest.mark.parametrize(("experiments", "one"), EVERY, ids=lambda value: value.name)
def test_experiments_are_settings_that_exist(experiments: ExperimentSet, one: Experiment) -> None:
    names = [other.name for other in experiments.experiments]
    assert names.count(one.name) == 1
    earlier = names[: names.index(one.name)]
    assert {*one.compared_with, *one.averages, *one.sources} <= set(earlier)
    assert bool(one.settings) != bool(one.averages)
    title = one.titled(NAMES)
    assert "{" not in title
    if one.averages:
        return
    for encoders, roles in experiments.encoders.items():
        config = experiments.config_of(one, experiments.config({"data": "-"}), encoders=encoders, seed=5)
        expanded = title.startswith("ME ") or "of ME " in title or "and ME " in title
        assert bool(config.model.system.source_modalities) == expanded
        assert config.model.tuned == ("tuned" in title)
        assert config.run.seed == 5
        assert {config.model.vision, config.model.text} <= set(roles.values())
        assert all(NAMES[modality] in title for modality in config.model.system.modalities)
    assert one.compared_with or not bool(config.model.system.source_modalities)


def test_a_title_names_the_encoders_that_ran() -> None:
    me_vision = TABLES[3].select(["me-vision"])[0]
    assert me_vision.titled({"image": "tf_efficientnet_lite0", "text": "all-MiniLM-L6-v2"}) == (
        "ME tf_efficientnet_lite0, reads all-MiniLM-L6-v2"
    )
    assert me_vision.paper_title == "ME DenseNet"
    for table in TABLES.values():
        in_paper = {name for paper in table.paper.values() for name in paper.figures}
        assert {one.name for one in table.experiments if one.paper_title} == in_paper
    assert not any(re.search(r"\bDenseNet|\bBERT", one.title) for _, one in EVERY)


@pytest.mark.parametrize("number", TABLES)
def test_every_experiment_has_the_papers_figures(number: int) -> None:
    table = TABLES[number]
    names = {one.name for one in table.experiments}
    for (data, task), paper in table.paper.items():
        assert set(paper.figures) == {one.name for one in table.experiments if one.paper_title} <= names
        assert all(len(figures) == len(paper.metrics) for figures in paper.figures.values())
        assert table.paper_figures(f"{data}:/somewhere", task or None) == paper
        assert list(paper.of("vision" if "vision" in names else "resnet")) == list(paper.metrics)
        assert paper.of("nothing") == {}
    assert table.paper_figures("my.csv", None) is None
    assert table.paper_figures("crisismmd:/d", None) == table.paper_figures("crisismmd:/d", next(iter(TASKS)))


def test_one_of_the_papers_figures() -> None:
    found = TABLES[6].paper_figures("crisismmd:/data", "humanitarian")
    assert found is not None
    assert found.of("me-xlnet")["accuracy"] == 92.1


def test_what_table_3_says_in_the_papers_text() -> None:
    """Section 4.3: an expanded model or fusion beats the plain one, in every metric of every task."""
    for paper in TABLES[3].paper.values():
        for one in TABLES[3].experiments:
            for base in {*one.compared_with} & {*paper.figures}:
                if one.name not in paper.figures:
                    continue
                assert np.array(paper.figures[one.name]).mean() > np.array(paper.figures[base]).mean()


def test_the_demo() -> None:
    assert len(DEMO.experiments) == 8
    values = {
        one.name: DEMO.config_of(one, DEMO.config(), encoders="demo", seed=3).to_json()
        for one in DEMO.experiments
        if one.settings
    }
    for one in DEMO.experiments:
        for base in one.compared_with:
            if one.name in values:  # only the units differ
                differ = {name for name, value in values[one.name].items() if value != values[base][name]}
                assert differ == ({"model", "source"} if one.sources else {"model"})


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    ("quarters", "whole"),
    [([f"vision-{i}" for i in range(1, 5)], "vision-1-4"),
     ([f"text-{i}-{i + 2}" for i in range(1, 11, 3)], "text-1-12")],
)  # fmt: skip
def test_the_line_of_all_sites_has_those_of_the_quarters(quarters: list[str], whole: str, preset: str) -> None:
    """Whatever sites the preset recommends: the paper's lines are named after sites."""

    def sites(name: str) -> list[str]:
        config = TABLES[5].config({"data": "-"}, preset=preset)
        one = TABLES[5].config_of(TABLES[5].select([name])[-1], config, encoders="tiny", seed=0)
        model = build_system(one, load_encoders(one), SingleLabel(("a", "b")))
        return [site.path for me in model.modules() if isinstance(me, ExpandedModel) for site in me.sites]

    assert sites(whole) == [path for name in quarters for path in sites(name)]


def test_selecting() -> None:
    names = [one.name for one in DEMO.select(["me-tuned-score-apart"])]
    assert names == ["text", "me-vision-tuned", "me-text", "me-tuned-score-apart"]  # with what it needs
    assert DEMO.select() == DEMO.experiments
    with pytest.raises(RecipeError, match=r"demo has no experiment gmu[\s\S]*me-vision"):
        DEMO.select(["vision", "gmu"])
    with pytest.raises(RecipeError, match="did you mean 'me-vision'"):
        DEMO.select(["me-vison"])
    with pytest.raises(RecipeError, match="did you mean 'demo'"):
        DEMO.config_of(DEMO.experiments[0], DEMO.config({}), encoders="demoo", seed=0)


def test_a_users_settings_come_over_the_sets_and_under_the_experiments() -> None:
    config = DEMO.config({"image_size": 64, "epochs": 1})
    one = DEMO.config_of(DEMO.select(["text"])[0], config, encoders="demo", seed=0)
    assert (one.model.image_size, one.optimisation.epochs, one.optimisation.text_learning_rate) == (64, 1, 1e-4)
    fixed = DEFAULTS.select(["me-text-full-rate"])[0]
    config = DEFAULTS.config({"data": "-", "unit_learning_rate": 0.5})
    assert DEFAULTS.config_of(fixed, config, encoders="tiny", seed=0).optimisation.unit_learning_rate == 1e-3
    assert TABLES[3].config({"data": "-"}).optimisation.optimizer == "adam"  # the paper's preset
    assert TABLES[3].config({"data": "-"}, preset="practical").optimisation.optimizer == "adamw"
    assert not TABLES[3].config({"data": "-"}).run.keep_weights
    with pytest.raises(RecipeError, match="paper, demo, tiny"):
        TABLES[3].config_of(TABLES[3].experiments[0], TABLES[3].config({"data": "-"}), encoders="large", seed=0)


@pytest.mark.parametrize(
    ("experiments", "words"),
    [
        ((Experiment("a", "", {"model": "vision"}), Experiment("a", "", {"model": "text"})), "'a' is out of place"),
        ((Experiment("a", "", {"model": "vision"}, compared_with=("b",)),), "'a' is out of place"),
        ((Experiment("a", "", averages=("a",)),), "'a' is out of place"),
        ((Experiment("a", ""),), "either settings or averages"),
        ((Experiment("a", "", {"model": "vision"}, {"vision": "resnext"}),), "encoders 'tiny' have no resnext"),
    ],
)
def test_a_declaration_that_cannot_be_is_an_error(experiments: tuple[Experiment, ...], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        ExperimentSet("wrong", "", experiments, {"tiny": ENCODERS["tiny"]})


@pytest.mark.parametrize(
    ("number", "make", "figures"),
    [
        (3, lambda root: f"crisismmd:{crisis(root)}", ("83.4", "60.5", "87.0")),
        (4, lambda root: f"mmimdb:{imdb(root)}", ("37.3", "46.7")),
    ],
    ids=["crisismmd", "mmimdb"],
)
def test_on_the_papers_data_the_papers_figures_stand_beside(
    number: int, make: Callable[[Path], str], figures: tuple[str, ...], tmp_path: Path
) -> None:
    table = TABLES[number]
    config = table.config({"data": make(tmp_path / "data"), "epochs": 1, "image_size": 32})
    run_experiments(table, config, tmp_path / "out", Console(quiet=True), encoders="tiny", seeds=[0], only=["vision"])
    line = (tmp_path / "out" / "table.md").read_text().splitlines()[2]
    assert line.startswith("| vision | densenet121 (random weights) |")
    assert "| Unimodal DenseNet |" in line
    for figure in figures:
        assert f"| {figure} " in line
    saved = load_run(tmp_path / "out" / "experiments" / "vision" / "seed-0")
    assert saved.config.optimisation.batch_size == 128
    assert saved.task.multi_label == (number == 4)
    assert str(tmp_path) not in (tmp_path / "out" / "table.md").read_text()
