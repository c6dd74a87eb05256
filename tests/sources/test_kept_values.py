"""What is computed of a source once and kept: a forward without gradients must not spoil a later one with them."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor

from mi2p_inject import ExpandedModel, SourceFeatures, ViewSpec, inject
from mi2p_inject.units import UNITS

SOURCES = {"tokens": (ViewSpec.tokens(24), (2, 5, 24)), "map": (ViewSpec.map(24, 3, 3), (2, 24, 3, 3))}
EACH = [(unit, kind) for unit in UNITS for kind in SOURCES]


def expanded(unit: str, kind: str) -> tuple[ExpandedModel, Tensor, Tensor]:
    torch.manual_seed(0)
    spec, shape = SOURCES[kind]
    me = inject(timm.create_model("resnet10t", num_classes=3).eval(), source_spec=spec, unit=unit)
    for parameter in me.units.parameters():
        parameter.data.normal_(std=0.01)
    return me.eval(), torch.randn(2, 3, 64, 64), torch.randn(shape)


def gradient(me: ExpandedModel, pictures: Tensor, given: Tensor, *, looked_first: bool, dtype: torch.dtype) -> Tensor:
    """Of the source, in a block whose first forward may have had no gradients."""
    source = given.clone().requires_grad_()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32), me.source(SourceFeatures(source)):
        if looked_first:
            with torch.no_grad():
                me.backbone(pictures)
        me.backbone(pictures).float().sum().backward()
    assert source.grad is not None
    return source.grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("unit", "kind"), EACH)
@pytest.mark.fault("calls", "a block that looks without gradients first, then trains", "the source's whole gradient")
def test_a_look_without_gradients_takes_none_away(unit: str, kind: str, dtype: torch.dtype) -> None:
    me, pictures, given = expanded(unit, kind)
    expected = gradient(me, pictures, given, looked_first=False, dtype=dtype)
    assert expected.any()
    torch.testing.assert_close(gradient(me, pictures, given, looked_first=True, dtype=dtype), expected)


@pytest.mark.parametrize(("unit", "kind"), EACH)
@pytest.mark.fault("calls", "a block that looks in inference mode first, then trains", "the ordinary step")
def test_a_look_in_inference_mode_does_not_stop_a_step(unit: str, kind: str) -> None:
    me, pictures, given = expanded(unit, kind)
    with me.source(SourceFeatures(given)):
        with torch.inference_mode():
            me.backbone(pictures)
        me.backbone(pictures).sum().backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in me.units.parameters())
