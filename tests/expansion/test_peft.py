"""PEFT before, after and over injection: adapters train what they should, merge, switch off, save and load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import complains, same
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

from mi2p_inject import ExpandedModel, SourceFeatures, inject, load
from mi2p_inject.core.errors import CheckpointError
from mi2p_inject.units import UNITS

TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 20}
IDS = torch.randint(0, 20, (2, 5), generator=torch.Generator().manual_seed(0))
SOURCE = SourceFeatures(torch.randn(2, 6, 3, 3, generator=torch.Generator().manual_seed(0)))
TARGETS = pytest.mark.parametrize("targets", ["all-linear", ["query", "value"]], ids=str)


def bert() -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = BertForSequenceClassification(BertConfig(**TINY, num_labels=3))
    return model.eval()


def expanded(backbone: nn.Module | None = None, **options: Any) -> ExpandedModel:
    """Its units read something."""
    me = inject(backbone or bert(), source_spec=SOURCE.spec, **options)
    randomise(me.units, 1)
    return me


def randomise(module: nn.Module, seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.2)


def lora(targets: Any, **options: Any) -> LoraConfig:
    return LoraConfig(target_modules=targets, r=2, init_lora_weights=False, **options)


def logits(model: nn.Module) -> Tensor:
    return model(input_ids=IDS, source=SOURCE).logits  # type: ignore[no-any-return]


def trained(model: nn.Module) -> dict[str, Tensor]:
    """The gradients of what requires one."""
    model.zero_grad()
    (logits(model) * torch.linspace(-1, 2, 6).view(2, 3)).sum().backward()
    return {name: one.grad for name, one in model.named_parameters() if one.requires_grad and one.grad is not None}


def all_required(model: nn.Module) -> set[str]:
    return {name for name, one in model.named_parameters() if one.requires_grad}


@TARGETS
@pytest.mark.parametrize("kept", [None, ["units"], ["units", "classifier"]], ids=str)
@pytest.mark.fault(
    "S2",
    "LoRA over an expanded model: all-linear or named targets, modules_to_save=['units']",
    "trained, merged, disabled, saved, loaded as on any model",
)
def test_over_the_expanded_model(targets: Any, kept: Any, tmp_path: Path) -> None:
    me = expanded()
    before = logits(me).detach()
    peft = get_peft_model(me, lora(targets, modules_to_save=kept))
    gradients = trained(peft)
    assert gradients.keys() == all_required(peft)
    assert all(bool(one.any()) for one in gradients.values())
    units = {name for name in gradients if "units." in name}
    assert len(units) == (len(list(expanded().units.parameters())) if kept else 0)
    assert all("units.modules_to_save.default./" in name for name in units)
    assert any("lora_A" in name for name in gradients.keys() - units)

    with torch.no_grad():  # a training step, in effect
        for name, parameter in peft.named_parameters():
            if name in gradients:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    after = logits(peft).detach()
    assert not torch.allclose(after, before, atol=1e-4)
    with peft.disable_adapter():
        assert torch.equal(logits(peft), before)
    assert torch.equal(logits(peft), after)

    peft.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(expanded(), str(tmp_path))
    assert torch.equal(logits(again), after)

    merged = peft.merge_and_unload()
    assert merged is me
    torch.testing.assert_close(logits(merged), after)
    merged.save_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(load(tmp_path / "merged", backbone=bert())), after)


@TARGETS
@pytest.mark.fault("S2", "adapters with no source given", "the units' adapters change nothing")
def test_without_the_source_only_the_backbones_adapters_count(targets: Any) -> None:
    alone = get_peft_model(bert(), lora(targets))
    peft = get_peft_model(expanded(), lora(targets))
    for name, parameter in peft.named_parameters():
        if "lora_" in name:
            of_backbone = name.replace("base_model.model.backbone.", "base_model.model.")
            parameter.data.copy_(alone.get_parameter(of_backbone))
    same(peft(input_ids=IDS).logits, alone(input_ids=IDS).logits)


def test_a_trained_copy_of_the_units_is_what_runs_and_what_is_given() -> None:
    me = expanded()
    peft = get_peft_model(me, lora(["query"], modules_to_save=["units"]))
    before = logits(peft).detach()
    path = me.sites[0].path
    unit = me.unit(path)
    assert all(parameter.requires_grad for parameter in unit.parameters())
    randomise(unit, 3)
    assert not torch.allclose(logits(peft), before, atol=1e-3)
    assert path in me.summary()


@pytest.mark.fault("S2", "save_pretrained while PEFT wraps the units", "CheckpointError")
def test_a_checkpoint_of_wrapped_units_is_refused(tmp_path: Path) -> None:
    me = expanded()
    get_peft_model(me, lora(["query"], modules_to_save=["units"]))
    with complains(CheckpointError, "PEFT", "modules_to_save", "merge"):
        me.save_pretrained(tmp_path)
    assert not any(tmp_path.iterdir())


@TARGETS
@pytest.mark.fault("S2", "LoRA put into the backbone before injection", "both train")
def test_before_injection(targets: Any) -> None:
    backbone = bert()
    peft = get_peft_model(backbone, lora(targets))
    alone = peft(input_ids=IDS).logits
    me = inject(backbone, layers="paper", source_spec=SOURCE.spec)
    same(logits(me), alone)
    randomise(me.units, 1)
    gradients = trained(me)
    assert gradients.keys() == all_required(me)
    assert {"lora_A" in name or "lora_B" in name or name.startswith("units.") for name in gradients} == {True}
    before = logits(me).detach()
    peft.merge_and_unload()
    torch.testing.assert_close(logits(me), before)


def test_a_peft_model_is_a_backbone() -> None:
    peft = get_peft_model(bert(), lora(["query", "value"]))
    layers = [f"base_model.model.bert.encoder.layer.{number}" for number in (0, 1)]
    me = inject(peft, layers=layers, source_spec=SOURCE.spec, example_inputs={"input_ids": IDS})
    same(logits(me), peft(input_ids=IDS).logits)
    randomise(me.units, 1)
    assert trained(me).keys() == all_required(me)


@TARGETS
@pytest.mark.fault("S2", "LoRA put over the backbone after injection", "both train")
def test_after_injection_over_the_backbone(targets: Any) -> None:
    me = expanded()
    before = logits(me).detach()
    peft = get_peft_model(me.backbone, lora(targets))
    gradients = trained(me)
    assert gradients.keys() == all_required(me)
    assert any("lora_A" in name for name in gradients)
    assert {name for name in gradients if name.startswith("units.")} == {
        f"units.{name}" for name, _ in me.units.named_parameters()
    }
    with peft.disable_adapter():
        torch.testing.assert_close(logits(me), before)
    after = logits(me).detach()
    assert not torch.allclose(after, before)
    peft.merge_and_unload()
    torch.testing.assert_close(logits(me), after)


@pytest.mark.parametrize("name", [name for name in UNITS if name != "mmtm"])
@pytest.mark.fault(
    "S2",
    "all-linear over units of every kind",
    "what is adapted counts and has gradients; units that multiply by weights are out of reach",
)
def test_every_kind_under_all_linear(name: str) -> None:
    """An adapter in a unit changes what it gives, and is trained; weights of MI2P are out of its reach."""
    peft = get_peft_model(expanded(unit=name), lora("all-linear"))
    gradients = trained(peft)
    assert gradients.keys() == all_required(peft)
    in_units = {key for key in gradients if "units." in key}
    assert all(bool(gradients[key].any()) for key in in_units)
    assert bool(in_units) is (not name.startswith("mi2p"))
    before = logits(peft).detach()
    for key in in_units:
        peft.get_parameter(key).data.mul_(3)
    assert torch.equal(logits(peft), before) is not bool(in_units)
    torch.testing.assert_close(logits(peft.merge_and_unload()), logits(peft))


@pytest.mark.fault(
    "S2", "all-linear over a language model whose head is tied", "exclude_modules=['lm_head'] merges rightly"
)
def test_a_tied_head_is_left_out() -> None:
    """PEFT leaves it out of transformers' own classes only; adapted and merged, it would change embeddings."""
    fields = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 20, "n_positions": 8}
    torch.manual_seed(0)
    me = inject(GPT2LMHeadModel(GPT2Config(**fields)).eval(), source_spec=SOURCE.spec)
    randomise(me.units, 1)
    peft = get_peft_model(me, lora("all-linear", exclude_modules=["lm_head"], task_type="CAUSAL_LM"))
    wanted = logits(peft).detach()
    merged = peft.merge_and_unload()
    torch.testing.assert_close(logits(merged), wanted)
    assert merged.backbone.lm_head.weight is merged.backbone.transformer.wte.weight
