"""torch's `fully_shard` by hand: what of an expanded model may be a group of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from helpers import PICTURES, complains, token_features
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard

from mi2p_inject import ExpandedModel, ViewSpec, inject
from mi2p_inject.core.errors import InjectionError

SOURCE = token_features(2)


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def expanded() -> ExpandedModel:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(1), nn.Linear(216, 2))
    options: dict[str, Any] = {"source_spec": ViewSpec.tokens(12), "example_inputs": PICTURES, "zero_init": None}
    return inject(net, layers=["0"], **options).train()


def test_layers_and_then_the_whole(mesh: DeviceMesh) -> None:
    wanted = expanded()(PICTURES, source=SOURCE)
    me = expanded()
    fully_shard(me.backbone[0], mesh=mesh)  # type: ignore[index]
    fully_shard(me, mesh=mesh)
    torch.testing.assert_close(me(PICTURES, source=SOURCE), wanted)
    me(PICTURES).sum().backward()
    assert all(one.grad is not None for one in me.units.parameters())


def test_all_units_as_one_group_are_refused(mesh: DeviceMesh) -> None:
    """No forward of theirs runs, so nothing would gather them: torch raised about mixed tensors."""
    me = expanded()
    fully_shard(me.units, mesh=mesh)
    fully_shard(me, mesh=mesh)
    with complains(InjectionError, r"fully_shard\(me"):
        me(PICTURES, source=SOURCE)


def test_a_unit_that_is_a_group_needs_its_source(mesh: DeviceMesh) -> None:
    """Processes that have the source would gather it with those that have not: torch ended them."""
    me = expanded()
    fully_shard(me.unit("0"), mesh=mesh)
    fully_shard(me, mesh=mesh)
    assert me(PICTURES, source=SOURCE).shape == (2, 2)
    with complains(InjectionError, r"fully_shard\(me"):
        me(PICTURES)
