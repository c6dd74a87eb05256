"""What torch's own tools make of an expanded model: averaged weights, their statistics, copies in threads."""

from __future__ import annotations

import pytest
import torch
from helpers import PICTURES, complains, mixture, token_features
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from mi2p_inject import ExpandedModel, ViewSpec, inject
from mi2p_inject.core.errors import InjectionError


def expanded(trainable: str) -> ExpandedModel:
    """With statistics that a training has left in its normalisation."""
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU())
    for _ in range(3):
        backbone.train()(PICTURES + 1)
    options = {"layers": "0", "source_spec": ViewSpec.tokens(12), "example_inputs": PICTURES, "zero_init": None}
    return inject(backbone, trainable=trainable, **options).train()


@pytest.mark.parametrize("trainable", ["all", "units"])
@pytest.mark.fault(
    "S1",
    "`update_bn` of averaged weights, which empties the statistics of normalisations that are frozen",
    "InjectionError: none would be taken anew",
)
def test_averaged_weights_and_their_statistics(trainable: str) -> None:
    me, source = expanded(trainable), token_features(2)
    averaged = AveragedModel(me)
    for step in range(2):
        mixture(me(PICTURES, source=source)).backward()
        torch.optim.SGD(me.trainable_parameters(), 0.1 * (step + 1)).step()
        averaged.update_parameters(me)
    other = AveragedModel(expanded(trainable))
    other.load_state_dict(averaged.state_dict())
    assert torch.equal(other.eval()(PICTURES, source=source), averaged.eval()(PICTURES, source=source))
    if trainable == "units":
        with complains(InjectionError, "update_bn", "anew"):
            update_bn([PICTURES], averaged)
    else:
        update_bn([PICTURES], averaged)
        torch.testing.assert_close(
            averaged.module.backbone[1].running_mean, averaged.module.backbone[0](PICTURES).mean((0, 2, 3))
        )


def replica(module: nn.Module) -> nn.Module:
    """As `torch.nn.parallel.replicate` makes them for each device."""
    copied = module._replicate_for_data_parallel()
    for name, child in module.named_children():
        setattr(copied, name, replica(child))
    for name, parameter in module.named_parameters(recurse=False):
        setattr(copied, name, parameter.clone())
    return copied


@pytest.mark.fault(
    "S1",
    "a copy that DataParallel (a Trainer on several devices) makes",
    "InjectionError names torchrun; without a source it runs",
)
def test_copies_of_data_parallel() -> None:
    me = expanded("all").eval()
    copied = replica(me)
    assert torch.equal(copied(PICTURES), me(PICTURES))
    with complains(InjectionError, "DataParallel", "torchrun"):
        copied(PICTURES, source=token_features(2))
