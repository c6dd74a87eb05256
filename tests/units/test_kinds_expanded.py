"""Every unit kind in real models: the backbone's output at the start, one step, a checkpoint, LoRA on its layers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import complains, first_tensor, map_features, same, token_features
from models import TINY
from torch import nn

from mi2p_inject import ExpandedModel, SourceFeatures, inject, load
from mi2p_inject.core.errors import UnitError
from mi2p_inject.units import UNITS

CASES = [
    pytest.param(name, model, id=f"{name}-{model}")
    for name in UNITS
    for model in ("resnet", "vit", "bert")
    if (name, model) != ("mmtm", "bert")
]


def expanded(name: str, model: str, **options: Any) -> tuple[nn.Module, ExpandedModel, Any, SourceFeatures]:
    """A tiny real model, expanded, with inputs and a source whose second sample is partly padding or not there."""
    backbone = TINY[model].build()
    args, kwargs = TINY[model].inputs(3, seed=1)
    source = map_features(3) if model == "bert" else token_features(3)
    me = inject(
        backbone, source_spec=source.spec, example_inputs=kwargs or args, unit=name, **{"layers": "paper", **options}
    )
    return backbone, me, (args, kwargs), source


@pytest.mark.parametrize(("name", "model"), CASES)
def test_starts_as_the_backbone_trains_and_loads(name: str, model: str, tmp_path: Path) -> None:
    backbone, me, (args, kwargs), source = expanded(name, model)
    alone = copy.deepcopy(backbone)
    assert name.removesuffix("-paper") in me.summary()
    for training in (True, False):
        me.train(training)
        state = copy.deepcopy(backbone.state_dict())
        torch.manual_seed(3)
        plain = backbone(*args, **kwargs)
        backbone.load_state_dict(state)  # batch norm moved its statistics
        torch.manual_seed(3)
        same(me(*args, source=source, **kwargs), plain)
        backbone.load_state_dict(state)
    optimizer = torch.optim.SGD(me.units.parameters(), 1.0)
    output = first_tensor(me(*args, source=source, **kwargs))
    (output * torch.linspace(-1, 2, output.numel()).view_as(output)).sum().backward()
    optimizer.step()
    trained = first_tensor(me(*args, source=source, **kwargs))
    assert not torch.equal(trained, output)
    there = torch.tensor([True, False, True])
    mixed = first_tensor(me(*args, source=source, source_mask=there, **kwargs))
    torch.testing.assert_close(mixed[1], output[1], rtol=0, atol=0)
    assert not torch.equal(mixed[0], output[0])
    me.save_pretrained(tmp_path)
    again = load(tmp_path, backbone=alone)
    assert again.expansion_config.unit == me.expansion_config.unit
    assert torch.equal(first_tensor(again.eval()(*args, source=source, **kwargs)), trained)


def test_a_unit_that_does_not_fit_the_sites_leaves_the_backbone_alone() -> None:
    backbone = TINY["bert"].build()
    args, kwargs = TINY["bert"].inputs(2, seed=1)
    before = first_tensor(backbone(*args, **kwargs))
    with complains(UnitError, "'mmtm' gates the channels of a map"):
        inject(backbone, layers="paper", source_spec=map_features(2).spec, example_inputs=kwargs or args, unit="mmtm")
    assert not any(module._forward_hooks for module in backbone.modules())
    assert torch.equal(first_tensor(backbone(*args, **kwargs)), before)


@pytest.mark.parametrize("name", [name for name in UNITS if UNITS[name].kind != "mi2p"])
def test_lora_on_a_units_layers_trains(name: str) -> None:
    """PEFT replaces a layer by one that wraps it: a unit that read its weight instead would never call the wrapper."""
    peft = pytest.importorskip("peft")
    _, me, (args, kwargs), source = expanded(name, "resnet")
    unit = me.unit(me.sites[-1].path)
    layers = [key for key, one in unit.named_modules() if isinstance(one, nn.Linear)]
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=layers), unit)
    for parameter in unit.parameters():
        nn.init.normal_(parameter, std=0.1)
    first_tensor(me(*args, source=source, **kwargs)).sum().backward()
    adapted = {key: parameter.grad for key, parameter in unit.named_parameters() if "lora" in key}
    assert len(adapted) == 2 * len(layers)
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in adapted.values())


@pytest.mark.parametrize("name", UNITS)
def test_forward_mode_is_the_gradient(name: str) -> None:
    _, me, (args, _), source = expanded(name, "resnet")
    me.double().eval()
    for parameter in me.units.parameters():
        nn.init.normal_(parameter, std=0.1)
    data, direction = source.data.double(), torch.randn(source.data.shape).double()

    def run(data: torch.Tensor) -> torch.Tensor:
        return first_tensor(me(args[0].double(), source=SourceFeatures(data))).square().sum()

    _, slope = torch.func.jvp(run, (data,), (direction,))
    (gradient,) = torch.autograd.grad(run(data.requires_grad_()), data)
    torch.testing.assert_close(slope, (gradient * direction).sum())


@pytest.mark.parametrize("name", UNITS)
def test_a_source_without_tokens_is_missing_in_a_compiled_model_too(name: str) -> None:
    torch._dynamo.reset()
    _, me, (args, kwargs), _ = expanded(name, "resnet", zero_init=None) if "mi2p" in name else expanded(name, "resnet")
    for parameter in me.eval().units.parameters():
        nn.init.normal_(parameter, std=0.1)
    nothing = SourceFeatures(torch.zeros(3, 0, me.expansion_config.sources[""].spec.width))
    plain = first_tensor(me(*args, **kwargs))
    for model in (me, torch.compile(me, backend="eager")):
        torch.testing.assert_close(first_tensor(model(*args, source=nothing, **kwargs)), plain)
