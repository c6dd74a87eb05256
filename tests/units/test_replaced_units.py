"""Units, sites and weights that somebody replaces: the forward uses what is there, or says that it cannot."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.fx
import torch.nn.utils.prune
from helpers import PICTURES, complains, differs, expanded, net, same, token_features
from torch import nn

from mi2p_inject import MI2P, inject
from mi2p_inject.core.errors import InjectionError, SiteError
from mi2p_inject.units.unit_dict import UnitDict

SOURCE = token_features(2)


def change(unit: nn.Module) -> None:
    with torch.no_grad():
        for parameter in unit.parameters():
            parameter.add_(0.5)


class TestReplacedUnits:
    @pytest.mark.fault(
        "S9", "units replaced by a copy or by new ones", "the forward uses those that are there, and they train"
    )
    def test_the_units_that_are_there_are_used(self) -> None:
        me = expanded()
        before = me(PICTURES, source=SOURCE)
        me.units = copy.deepcopy(me.units)
        same(me(PICTURES, source=SOURCE), before)
        change(me.unit("0"))
        assert differs(me(PICTURES, source=SOURCE), before)
        me.units["/0"] = MI2P(num_heads=2, zero_init="value_proj").build(me.sites[0].spec, SOURCE.spec)
        same(me(PICTURES, source=SOURCE), me(PICTURES))
        assert {id(one) for one in me.parameters()} >= {id(one) for one in me.units["/0"].parameters()}
        me.train()
        me(PICTURES, source=SOURCE).sum().backward()
        assert any(one.grad is not None and one.grad.any() for one in me.units["/0"].parameters())

    @pytest.mark.fault("S9", "a unit deleted, or put under another key", "InjectionError")
    def test_a_unit_that_is_gone_is_missed(self) -> None:
        me = expanded()
        unit = me.unit("0")
        del me.units["/0"]
        same(me(PICTURES), me.backbone(PICTURES))
        for keys in ((), ("/1",), ("/0", "/1")):
            me.units = UnitDict()
            for key in keys:
                me.units[key] = unit
            with complains(InjectionError, "not those of the sites"):
                me(PICTURES, source=SOURCE)
        me.units = nn.ModuleDict({"/0": unit})  # type: ignore[assignment]
        with complains(InjectionError, "not those of the sites", "ModuleDict"):
            me(PICTURES, source=SOURCE)

    @pytest.mark.parametrize(
        "kind",
        [nn.Identity, lambda: nn.Linear(12, 12), lambda: None, "inside"],
        ids=["identity", "linear", "none", "inside"],
    )
    @pytest.mark.fault("S9", "a module that is no unit, or None, in a unit's place", "InjectionError names it")
    def test_what_is_no_unit_is_refused(self, kind: Any) -> None:
        me = expanded()
        me.units._modules["/0"] = nn.Sequential(me.unit("0")) if kind == "inside" else kind()
        with complains(InjectionError, "'/0'", "no unit"):
            me(PICTURES, source=SOURCE)

    def test_a_compiled_unit_is_one(self) -> None:
        me = expanded()
        before = me(PICTURES, source=SOURCE)
        me.units["/0"] = torch.compile(me.unit("0"), backend="eager")  # type: ignore[assignment]
        torch.testing.assert_close(me(PICTURES, source=SOURCE), before)

    @pytest.mark.fault("S9", "a site, its hooks or the backbone replaced by a copy", "SiteError: it did not fire")
    def test_a_site_that_is_gone_is_missed(self) -> None:
        for replace in (
            lambda me: me.backbone.set_submodule("0", copy.deepcopy(me.backbone.get_submodule("0"))),
            lambda me: me.backbone.get_submodule("0")._forward_hooks.clear(),
            lambda me: setattr(me, "backbone", copy.deepcopy(me.backbone)),
        ):
            me = expanded()
            replace(me)
            with complains(SiteError, "did not fire", "replaced after injection"):
                me(PICTURES, source=SOURCE)
        me = expanded()
        before = me(PICTURES, source=SOURCE)
        me.backbone = torch.fx.symbolic_trace(me.backbone)  # it calls the same module at the site
        same(me(PICTURES, source=SOURCE), before)

    @pytest.mark.fault("S9", "weight_norm on the layers of units, and pruning", "the forward uses the new weights")
    def test_parametrised_units(self) -> None:
        me = expanded()
        before = me(PICTURES, source=SOURCE)
        layers = [one for one in me.units.modules() if isinstance(getattr(one, "weight", None), nn.Parameter)]
        layers = [one for one in layers if one.weight.dim() > 1]  # type: ignore[operator]
        assert layers
        for layer in layers:
            nn.utils.parametrizations.weight_norm(layer)
        torch.testing.assert_close(me(PICTURES, source=SOURCE), before, rtol=1e-3, atol=1e-4)
        me(PICTURES, source=SOURCE).square().sum().backward()
        assert all(one.grad is not None for one in me.units.parameters())
        for layer in layers:
            nn.utils.parametrize.remove_parametrizations(layer, "weight")
            nn.utils.prune.random_unstructured(layer, "weight", 0.9)
        assert differs(me(PICTURES, source=SOURCE), before)

    @pytest.mark.fault("S9", "torch.func.functional_call with other parameters of the units", "those are used")
    def test_a_functional_call_uses_its_own(self) -> None:
        me = expanded()
        zeros = {name: torch.zeros_like(one) for name, one in me.named_parameters() if name.startswith("units.")}
        same(torch.func.functional_call(me, zeros, (PICTURES,), {"source": SOURCE}), me(PICTURES))


class EightBits(nn.Module):
    """A layer as weight-only quantisation puts it in place of a linear one."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.scale = float(layer.weight.detach().abs().max()) / 127
        stored = (layer.weight.detach() / self.scale).round().to(torch.int8)
        self.weight, self.bias = nn.Parameter(stored, requires_grad=False), layer.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)  # as bitsandbytes does
        return nn.functional.linear(x, self.scale * self.weight.to(x.dtype), bias)


@pytest.mark.parametrize("kind", ["film", "cross-attention", "mmtm"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.fault(
    "quantised", "layers of units replaced by ones whose weights are integers", "computed in a floating type, as before"
)
def test_integers_are_no_type_to_compute_in(kind: str, dtype: torch.dtype) -> None:
    me = inject(net(), layers="0", source_spec=SOURCE.spec, example_inputs=PICTURES, unit=kind)
    for parameter in me.units.parameters():
        nn.init.normal_(parameter, std=0.3)
    expected, alone = me(PICTURES, source=SOURCE), me(PICTURES)
    for name, layer in list(me.units.named_modules()):
        if isinstance(layer, nn.Linear):
            place, _, last = name.rpartition(".")
            setattr(me.units.get_submodule(place), last, EightBits(layer))
    me.to(dtype)
    found = me(PICTURES.to(dtype), source=SOURCE).float()
    torch.testing.assert_close(found, expected, atol=0.03 * float((expected - alone).abs().max()), rtol=0.03)
