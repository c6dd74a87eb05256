"""torch's own wrapper for gradient checkpointing, which Accelerate puts around blocks: before injection and after."""

from __future__ import annotations

import functools

import pytest
import timm
import torch
from helpers import complains, token_features
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    CheckpointImpl,
    apply_activation_checkpointing,
    checkpoint_wrapper,
)

from mi2p_inject import ExpandedModel, ViewSpec, inject
from mi2p_inject.core.errors import Mi2pError

WORDS = token_features(2)
PICTURES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
BLOCKS = {"resnet10t": "BasicBlock", "test_vit": "Block"}
IMPLEMENTATIONS = pytest.mark.parametrize("kind", [CheckpointImpl.NO_REENTRANT, CheckpointImpl.REENTRANT], ids=str)


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, num_classes=3, **({"img_size": 64} if name == "test_vit" else {}))
    return model


def wrap(model: nn.Module, name: str, kind: CheckpointImpl) -> nn.Module:
    wrapper = functools.partial(checkpoint_wrapper, checkpoint_impl=kind)
    apply_activation_checkpointing(model, wrapper, check_fn=lambda one: type(one).__name__ == BLOCKS[name])
    return model


def expanded(model: nn.Module, **options: object) -> ExpandedModel:
    me = inject(model, source_spec=ViewSpec.tokens(12), example_inputs=PICTURES, **options)  # type: ignore[arg-type]
    torch.manual_seed(1)
    for parameter in me.units.parameters():
        nn.init.normal_(parameter, std=0.5)
    return me.train()


def gradients(me: ExpandedModel) -> dict[str, Tensor]:
    me(PICTURES, source=WORDS).square().sum().backward()
    return {
        name.replace("_checkpoint_wrapped_module.", ""): one.grad
        for name, one in me.named_parameters()
        if one.grad is not None
    }


@IMPLEMENTATIONS
@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.fault(
    "S1", "torch's checkpoint_wrapper around blocks, reentrant or not", "the gradients of an ordinary step"
)
def test_wrapped_after_injection(name: str, kind: CheckpointImpl) -> None:
    wanted = gradients(expanded(network(name)))
    me = expanded(network(name))
    wrap(me.backbone, name, kind)
    found = gradients(me)
    assert found.keys() == wanted.keys()
    for key, gradient in wanted.items():
        torch.testing.assert_close(found[key], gradient, atol=1e-4 * (1 + float(gradient.abs().max())), rtol=1e-3)


@IMPLEMENTATIONS
@pytest.mark.fault(
    "S1", "a site that the head ignores, in a model that is wrapped already", "an error at injection, as without"
)
def test_a_site_that_is_lost_is_found_in_a_wrapped_model(kind: CheckpointImpl) -> None:
    model = wrap(network("test_vit"), "test_vit", kind)
    last = [name for name, _ in model.named_modules() if name.endswith("_checkpoint_wrapped_module")][-1]
    with complains(Mi2pError, "ignores this module's patch tokens"):
        expanded(model, layers=[last])
