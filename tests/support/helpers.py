"""Small tools of the tests."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mi2p_inject import ExpandedModel, Mi2pError, SourceFeatures, ViewSpec, inject


def token_features(batch: int, width: int = 12, length: int = 5, seed: int = 0) -> SourceFeatures:
    """Words, the last two padding in every second row."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(batch, length, dtype=torch.bool)
    mask[1::2, -2:] = False
    return SourceFeatures(torch.randn(batch, length, width, generator=generator), mask)


def map_features(batch: int, channels: int = 10, height: int = 3, width: int = 4, seed: int = 0) -> SourceFeatures:
    """A picture's last map."""
    generator = torch.Generator().manual_seed(seed)
    return SourceFeatures(torch.randn(batch, channels, height, width, generator=generator))


def first_tensor(output: Any) -> Tensor:
    """The first floating tensor of a model's output."""
    return floats(output)[0]


def floats(output: Any) -> list[Tensor]:
    """All floating tensors of a model's output."""
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def differs(output: Any, expected: Any) -> bool:
    """Whether any floating tensor of two outputs differs."""
    return any(not torch.equal(one, other) for one, other in zip(floats(output), floats(expected), strict=True))


def mixture(output: Any) -> Tensor:
    """A scalar that depends on every number of an output, differently on each."""
    mixed = [(leaf * torch.linspace(-1, 1, leaf.numel()).view_as(leaf)).sum() for leaf in floats(output)]
    return torch.stack(mixed).sum()


def same(output: Any, expected: Any) -> None:
    """Bit-equal trees of tensors of one type."""
    assert type(output) is type(expected)
    ours, theirs = pytree.tree_leaves(output), pytree.tree_leaves(expected)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other


@dataclass(frozen=True)
class Snapshot:
    """Everything injection must give back."""

    cls: type
    keys: list[str]
    identities: set[int]
    requires_grad: list[bool]
    modes: list[bool]
    hooks: list[list[int]]
    buffers: list[float]
    attributes: list[list[str]]


def snapshot(model: nn.Module) -> Snapshot:
    return Snapshot(
        type(model),
        list(model.state_dict()),
        {id(parameter) for parameter in model.parameters()},
        [parameter.requires_grad for parameter in model.parameters()],
        [module.training for module in model.modules()],
        [
            [
                id(hook)
                for table in (m._forward_hooks, m._forward_pre_hooks, m._backward_hooks)
                for hook in table.values()
            ]
            for m in model.modules()
        ],
        [float(buffer.double().sum()) for buffer in model.buffers()],
        [sorted(vars(module)) for module in model.modules()],
    )


WORDS = ViewSpec.tokens(12)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    )


PICTURES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def expanded(**options: Any) -> ExpandedModel:
    return inject(net(), layers="0", source_spec=WORDS, example_inputs=PICTURES, zero_init=None, **options)


def complains(kind: type[Mi2pError], *words: str) -> Any:
    """`pytest.raises` that also asks for the three parts every message has."""
    pattern = ".*".join(["", *words]) if words else ""
    return _Complains(kind, pattern)


class _Complains:
    def __init__(self, kind: type[Mi2pError], pattern: str) -> None:
        self.inner = pytest.raises(kind, match=re.compile(pattern, re.DOTALL))

    def __enter__(self) -> Any:
        self.info = self.inner.__enter__()
        return self.info

    def __exit__(self, *error: Any) -> Any:
        swallowed = self.inner.__exit__(*error)
        message = str(self.info.value)
        for part in ("expected: ", "given: ", "fix: "):
            assert part in message, message
        return swallowed
