"""What is in force around `inject`, `load` and a forward: inference mode, no gradients, another default device."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers import mixture, token_features
from models import HEADED, PIXELS

from mi2p_inject import inject, load
from mi2p_inject.testing.inputs import features_for
from mi2p_inject.testing.randomize import randomize_zero_parameters
from mi2p_inject.units.cpu_kernel.block_parts import scratch

SOURCE = token_features(2)
PICTURES = torch.randn(2, 3, PIXELS // 2, PIXELS // 2, generator=torch.Generator().manual_seed(0))
# meta stands for any default device other than the model's: torch.set_default_device("cuda")
AROUND = {
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "default_device": partial(torch.device, "meta"),
    "autocast": partial(torch.autocast, "cpu", torch.bfloat16),
}


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
@pytest.mark.fault(
    "S1",
    "`inject` or `load` in inference mode, without gradients, under autocast or another default device",
    "the same sites, and units that train",
)
def test_the_same_sites_and_units_that_train(
    around: Callable[[], AbstractContextManager[object]], tmp_path: Path
) -> None:
    wanted = inject(HEADED["vit"].build(), layers="paper", source_spec=SOURCE.spec)
    assert wanted.expansion_config.left_out  # the class token reads nothing of the last block
    first, second = HEADED["vit"].build(), HEADED["vit"].build()
    with around():
        me = inject(first, layers="paper", source_spec=SOURCE.spec)
    assert me.sites == wanted.sites
    assert me.expansion_config.left_out == wanted.expansion_config.left_out
    randomize_zero_parameters(me.units)
    me.save_pretrained(tmp_path)
    with around():
        again = load(tmp_path, backbone=second)
    for one in (me, again):
        mixture(one(PICTURES, source=SOURCE)).backward()
        assert all(parameter.grad is not None for parameter in one.units.parameters())
    assert torch.equal(again(PICTURES, source=SOURCE), me(PICTURES, source=SOURCE))


def test_what_is_made_on_the_way_is_where_it_is_used() -> None:
    """Kept buffers of the blocks, and inputs of `check_model`."""
    found: list[str] = []

    def look() -> None:  # a thread has buffers of its own
        with torch.device("meta"):
            found.append(scratch("test", (3, 4), PICTURES).device.type)
            found.append(scratch("test", (3, 10**7), PICTURES).device.type)
            found.append(features_for(SOURCE.spec, 2).data.device.type)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == ["cpu"] * 3
