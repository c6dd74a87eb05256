"""A training with an auxiliary encoder's weights: it goes on, is folded, and its run folder stands by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from recipes_data import write_table
from rich.console import Console
from training_runs import interrupted_at, losses

from mi2p_inject.core.errors import PathwayError
from mi2p_inject.recipes.config import make_config
from mi2p_inject.recipes.encoders.load import load_encoder
from mi2p_inject.recipes.encoders.tiny import TINY
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.evaluation.evaluate import evaluate_run
from mi2p_inject.recipes.saving.saved import load_run
from mi2p_inject.recipes.systems import build_system
from mi2p_inject.recipes.systems.auxiliary import add_auxiliary, load_auxiliary
from mi2p_inject.recipes.tasks import SingleLabel
from mi2p_inject.recipes.training import train as training
from mi2p_inject.recipes.training.train import train_run


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("data"))


@pytest.fixture
def same_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny BERT as wide as the tiny vision transformer."""
    vit: Any = load_encoder("tiny:vit", "image").model
    like = TINY["bert", "text"](64).model.config  # type: ignore[union-attr]
    block = vit.blocks[0]
    like.hidden_size, like.intermediate_size = block.attn.qkv.in_features, block.mlp.fc1.out_features
    like.num_hidden_layers = 2

    def bert(side: int) -> Any:
        import transformers

        made = TINY["xlnet", "text"](side)
        made.model, made.origin = transformers.BertModel(like), {**made.origin, "class": "BertModel"}
        return made

    monkeypatch.setitem(TINY, ("bert", "text"), bert)


def train(table: Path, out: Path, **more: Any) -> Path:
    given = {"model": "vision", "vision": "tiny:vit", "auxiliary": "tiny:bert", "learning_rate": 3e-3, **more}
    train_run(make_config({"data": str(table), "batch_size": 16, **given}), out, Console(quiet=True))
    return out


@pytest.mark.usefixtures("same_width")
def test_trained_folded_and_read_back_without_it(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"max_steps": 3, "save_steps": 1}
    out = train(table, tmp_path / "whole", **given)
    plain = train(table, tmp_path / "plain", **given, auxiliary=None)
    assert losses(out)[0] == pytest.approx(losses(plain)[0], abs=1e-6)  # every scale starts at 0
    assert losses(out)[2] != losses(plain)[2]

    with monkeypatch.context() as patched:
        patched.setattr(training, "row_progress", interrupted_at(2))
        with pytest.raises(KeyboardInterrupt):
            train(table, tmp_path / "stopped", **given)
    train(table, tmp_path / "stopped", **given)
    assert losses(tmp_path / "stopped") == pytest.approx(losses(out), rel=1e-5)

    monkeypatch.undo()  # the auxiliary is gone
    saved = load_run(out)
    model, _ = saved.model()
    assert model.state_dict().keys() == load_run(plain).model()[0].state_dict().keys()
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert evaluate_run(saved, None, {})["metrics"]["accuracy"] == saved.numbers["test"]["accuracy"]


@pytest.mark.usefixtures("same_width")
@pytest.mark.parametrize("trainable", ["all", "units"])
def test_what_trains(trainable: str) -> None:
    given = {"data": "-", "model": "vision", "vision": "tiny:vit", "auxiliary": "tiny:bert", "trainable": trainable}
    config = make_config(given)
    encoders, auxiliary = training.load_encoders(config), load_auxiliary(config.model)
    model = build_system(config, encoders, SingleLabel(("a", "b")))
    pathway = add_auxiliary(encoders, auxiliary, config.model)
    assert pathway is not None
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name in trained if name.endswith(".scale")}
    assert any(".auxiliary" in name or ".original" in name for name in trained) == (trainable == "all")
    assert trained <= model.parameter_groups().keys()
    assert model.parameter_groups().keys() == {name for name, _ in model.named_parameters()}


def test_what_does_not_fit(table: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="model=vision or model=text"):
        make_config({"data": "-", "model": "me-vision", "auxiliary": "demo"})
    with pytest.raises(PathwayError):
        train(table, tmp_path / "widths")  # the tiny BERT is narrower
    with pytest.raises(PathwayError):
        train(table, tmp_path / "cnn", vision="tiny:densenet")
    assert not list(tmp_path.iterdir())
