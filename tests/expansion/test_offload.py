"""Backbones and encoders whose weights accelerate keeps elsewhere, or spreads over devices."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from helpers import PICTURES, net, same, snapshot, token_features
from models import HEADED, TINY
from torch import nn

from mi2p_inject import ViewSpec, inject
from mi2p_inject.core.errors import SourceError
from mi2p_inject.core.weights.offload import computing_device, offloaded

WORDS = ViewSpec.tokens(12)


def offload(model: nn.Module, how: str, folder: Path) -> nn.Module:
    if how == "cpu":
        return accelerate.cpu_offload(model, execution_device="cpu")  # type: ignore[no-any-return]
    if how == "disk":
        return accelerate.disk_offload(model, str(folder), execution_device="cpu")  # type: ignore[no-any-return]
    names = [name for name, child in model.named_children() if list(child.parameters())]
    spread = dict.fromkeys(
        [name for name, _ in (*model.named_children(), *model.named_parameters(recurse=False))], "cpu"
    )
    spread[names[len(names) // 2]] = "disk"
    return accelerate.dispatch_model(model, spread, main_device="cpu", offload_dir=str(folder))  # type: ignore[no-any-return]


@pytest.mark.parametrize("how", ["cpu", "disk", "map"])
@pytest.mark.parametrize("name", ["resnet", "vit", "bert"])
@pytest.mark.fault("calls", "a backbone that accelerate offloads", "works")
def test_an_offloaded_backbone(name: str, how: str, tmp_path: Path) -> None:
    tiny = HEADED[name]
    args, kwargs = tiny.inputs(2, 0)
    plain = tiny.build()
    ready = inject(copy.deepcopy(plain), layers="paper", source_spec=WORDS, zero_init=None)
    model = offload(plain, how, tmp_path)
    alone, before = model(*args, **kwargs), snapshot(model)
    me = inject(model, layers="paper", source_spec=WORDS, zero_init=None)
    assert me.sites == ready.sites
    assert not any(one.is_meta for one in me.units.parameters())
    me.units.load_state_dict(ready.units.state_dict())
    with torch.no_grad():
        same(me(*args, **kwargs), alone)
        same(me(*args, source=token_features(2), **kwargs), ready(*args, source=token_features(2), **kwargs))
    me.eject()
    assert snapshot(model).modes == before.modes
    same(model(*args, **kwargs), alone)


@pytest.mark.parametrize("how", ["cpu", "disk", "map"])
@pytest.mark.parametrize("name", ["resnet", "bert"])
@pytest.mark.fault("calls", "a source encoder that accelerate offloads", "works")
def test_an_offloaded_encoder(name: str, how: str, tmp_path: Path) -> None:
    tiny = TINY[name]
    args, kwargs = tiny.inputs(2, 0)
    batch: Any = kwargs or args
    encoder = tiny.build()
    options: dict[str, Any] = {"layers": "0", "example_inputs": PICTURES, "source_example_inputs": batch}
    wanted = inject(net(), source_encoder=copy.deepcopy(encoder), **options).encode(batch)
    me = inject(net(), source_encoder=offload(encoder, how, tmp_path), **options)
    got = me.encode(batch)
    assert torch.equal(got.data, wanted.data)
    me(PICTURES, source=batch)


def test_where_a_module_computes(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 4)), nn.ReLU())
    assert not offloaded(model)
    assert computing_device(model, "2") == torch.device("cpu")
    assert computing_device(model.to("meta"), "1.1") == torch.device("meta")
    model = offload(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), "cpu", tmp_path)
    assert offloaded(model)
    assert all(one.is_meta for one in model.parameters())
    assert {computing_device(model, path) for path in ("", "0", "1")} == {torch.device("cpu")}


def test_offloading_the_expanded_model_names_what_to_offload() -> None:
    """Its units stay on the meta device then, where no features could follow them."""
    tiny = HEADED["bert"]
    args, kwargs = tiny.inputs(2, 0)
    me = inject(tiny.build(), layers="paper", source_spec=WORDS, zero_init=None)
    wanted = me(*args, source=token_features(2), **kwargs)
    whole = accelerate.cpu_offload(copy.deepcopy(me), execution_device="cpu")
    with pytest.raises(SourceError, match=r"offload me\.backbone"):
        whole(*args, source=token_features(2), **kwargs)
    accelerate.cpu_offload(me.backbone, execution_device="cpu")  # as it says
    same(me(*args, source=token_features(2), **kwargs), wanted)
