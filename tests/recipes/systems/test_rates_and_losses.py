"""Learning rates of parameters new and old, and the losses of single branches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from built_systems import batch, built
from helpers import complains
from torch import Tensor, nn

from mi2p_inject.recipes.config import make_config
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.systems import Batch, Group, SystemModel
from mi2p_inject.recipes.training.optimizer import optimizer_groups


def test_two_rates_and_decay_on_matrices_only() -> None:
    classifier = built("me-vision", vision="demo", text="tiny")
    config = make_config({"data": "-", "learning_rate": 0.1, "new_learning_rate": 0.2, "weight_decay": 0.3})
    groups = optimizer_groups(classifier, config.optimisation)
    found = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert len(found) == sum(len(group["params"]) for group in groups)
    trained = {name: p for name, p in classifier.named_parameters() if p.requires_grad}
    assert found.keys() == {id(p) for p in trained.values()}
    for name, parameter in trained.items():
        rate = 0.2 if name.startswith("fusion.") or ".units." in name else 0.1  # an image encoder's units
        assert found[id(parameter)] == (rate, 0.3 if parameter.ndim > 1 else 0.0), name


def test_each_encoder_has_its_rate() -> None:
    classifier = built("late-fusion", vision="demo", text="demo")
    for settings, rates in (
        ({}, (0.1, 0.1)), ({"vision_learning_rate": 0.3}, (0.3, 0.1)),
        ({"vision_learning_rate": 0.3, "text_learning_rate": 0.4}, (0.3, 0.4)),
    ):  # fmt: skip
        config = make_config({"data": "-", "learning_rate": 0.1, "new_learning_rate": 0.2, **settings})
        groups = optimizer_groups(classifier, config.optimisation)
        found = {id(p): group["lr"] for group in groups for p in group["params"]}
        for modality, rate in zip(("image", "text"), rates, strict=True):
            assert {found[id(p)] for p in classifier.branches[modality].parameters() if id(p) in found} == {rate}
        assert {found[id(p)] for p in classifier.fusion.parameters()} == {0.2}


@pytest.mark.parametrize(
    ("settings", "rates"),
    [({}, (0.3, 0.1)), ({"unit_learning_rate": 0.6}, (0.6, 0.6))],  # a text encoder's units: a third
)
def test_units_have_their_rate(settings: dict[str, float], rates: tuple[float, float]) -> None:
    classifier = built("me-fusion")
    config = make_config({"data": "-", "learning_rate": 0.01, "new_learning_rate": 0.3, **settings})
    found = {id(p): group["lr"] for group in optimizer_groups(classifier, config.optimisation) for p in group["params"]}
    for modality, rate in zip(("image", "text"), rates, strict=True):
        units = [p for name, p in classifier.branches[modality].named_parameters() if ".units." in name]
        assert units
        assert sorted({found[id(p)] for p in units}) == pytest.approx([rate])
    assert {found[id(p)] for p in classifier.fusion.parameters()} == {0.3}


class TestOwnLosses:
    """The loss of a fused model, with and without that of each branch alone."""

    def outputs(self, fusion: str, image: list[bool], **settings: Any) -> tuple[SystemModel, Any, Any]:
        model = built("late-fusion", fusion, dropout=0.0, **settings).eval()
        given = batch(model, image, [True] * len(image))
        return model, given, torch.tensor([0, 1, 2, 1])[: len(image)]

    @pytest.mark.parametrize("fusion", ["score", "concat"])
    def test_literally(self, fusion: str) -> None:
        there = [True, False, True, True]
        model, given, labels = self.outputs(fusion, there, branch_loss=True)
        with torch.no_grad():
            found = model(**given, labels=labels)
            expected = torch.nn.functional.cross_entropy(found["logits"], labels)
            heads = model.fusion.heads if fusion == "score" else model.own_heads
            for head, branch in zip(heads, model.branches.values(), strict=True):
                vectors, present = branch(given)
                rows = [row for row in range(4) if present[row]]
                losses = [
                    torch.nn.functional.cross_entropy(head(vectors[row : row + 1]), labels[row : row + 1])
                    for row in rows
                ]
                expected = expected + sum(losses) / len(losses)
        assert float(found["loss"]) == pytest.approx(float(expected), rel=1e-5)

    def test_by_default_with_score_fusion_and_concatenation(self) -> None:
        for fusion, settings, own in (
            ("score", {}, True), ("score", {"branch_loss": False}, False),
            ("concat", {}, True), ("concat", {"branch_loss": False}, False),
            ("gmu", {}, False), ("gmu", {"branch_loss": True}, True),
        ):  # fmt: skip
            model, given, labels = self.outputs(fusion, [True] * 4, **settings)
            with torch.no_grad():
                found = model(**given, labels=labels)
            alone = float(torch.nn.functional.cross_entropy(found["logits"], labels))
            assert (float(found["loss"]) > alone + 0.1) == own

    def test_a_batch_without_pictures(self) -> None:
        model, given, labels = self.outputs("score", [False] * 4)
        loss = model(**given, labels=labels)["loss"]
        assert loss.isfinite()
        loss.backward()
        assert model.branches["text"].network.word_embedding.weight.grad is not None

    def test_one_branch_has_one_loss(self) -> None:
        model = built("vision", branch_loss=True)
        assert not model.own_losses


class Odd(SystemModel):
    """A model of another distribution whose groups and outputs are given to it."""

    def __init__(self, groups: dict[str, str], outputs: Any = None) -> None:
        super().__init__(nn.CrossEntropyLoss())
        self.head, self.groups, self.gives = nn.Linear(2, 3), groups, outputs

    def logits(self, batch: Batch) -> Tensor:
        logits: Tensor = self.head(batch["x"])
        return logits

    def outputs(self, batch: Batch, labels: Tensor | None) -> dict[str, Tensor]:
        return super().outputs(batch, labels) | (self.gives or {})

    def parameter_groups(self) -> dict[str, Group]:
        return self.groups  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("groups", "words"),
    [({"head.weight": "new"}, "head.bias"), ({"head.weight": "new", "head.bias": "nwe"}, "did you mean 'new'")],
)
def test_a_parameter_without_a_rate_is_named(groups: dict[str, str], words: str) -> None:
    with complains(RecipeError, "Odd", words):
        optimizer_groups(Odd(groups), make_config({"data": "-"}).optimisation)
    assert optimizer_groups(Odd({"head.weight": "new", "head.bias": "new"}), make_config({"data": "-"}).optimisation)


def test_only_logits_and_loss_of_what_a_system_gives_reach_a_trainer() -> None:
    x, labels, more = torch.randn(4, 2), torch.tensor([0, 1, 2, 1]), {"image_logits": torch.ones(4, 3)}
    model = Odd({}, more)
    assert set(model(labels, x=x)) == {"loss", "logits"}
    assert torch.equal(model(x=x)["logits"], model.logits({"x": x}))
    assert "image_logits" in model.outputs({"x": x}, labels)


@pytest.mark.parametrize(
    ("gives", "words"),
    [
        ({"logits": torch.ones(4)}, r"logits.*\(B, 3\)"),
        ({"logits": torch.ones(4, 5)}, r"logits.*\(B, 3\)"),
        ({"logits": None}, r"logits.*\(B, 3\)"),
        ({"loss": torch.ones(4)}, "loss.*one number"),
        ({"loss": None}, "loss.*one number"),
    ],
)
def test_outputs_that_are_no_logits_or_no_loss_are_refused(gives: dict[str, Any], words: str) -> None:
    model = Odd({}, gives)
    model.logit_count = 3
    with complains(RecipeError, "Odd", words):
        model(torch.tensor([0, 1, 2, 1]), x=torch.randn(4, 2))
