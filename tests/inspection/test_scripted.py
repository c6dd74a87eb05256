"""Modules of `torch.jit` in a backbone and as a source: what takes a hook is a site, the rest an error of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import complains, token_features
from torch import Tensor, nn

from mi2p_inject import ViewSpec, inject, load
from mi2p_inject.core.errors import InjectionError, SiteError

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
TOKENS = torch.randn(3, 7, 4, generator=torch.Generator().manual_seed(0))
MADE = {
    "scripted": torch.jit.script,
    "traced": lambda module: torch.jit.trace(module, torch.zeros(3, 7, 8)),
}


class Network(nn.Module):
    def __init__(self, block: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.head = nn.Linear(4, 8), nn.Linear(8, 5)
        self.block = block(nn.Sequential(nn.Linear(8, 8), nn.ReLU()))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.block(self.first(x)).mean(1))
        return out


@pytest.mark.parametrize(("made", "site"), [("traced", "block"), ("traced", "first"), ("scripted", "first")])
def test_a_backbone_that_holds_one_is_expanded(made: str, site: str, tmp_path: Path) -> None:
    network, source = Network(MADE[made]), token_features(3)
    plain = network(TOKENS)
    me = inject(network, layers=site, source_spec=source.spec, example_inputs=TOKENS)
    assert torch.equal(me(TOKENS, source=source), plain)
    me(TOKENS, source=source).square().sum().backward()
    assert any(one.grad is not None and bool(one.grad.any()) for one in me.units.parameters())
    nn.init.ones_(me.unit(site).source_to_shift.weight)
    changed = me(TOKENS, source=source)
    assert not torch.equal(changed, plain)
    me.save_pretrained(tmp_path)
    assert torch.equal(load(tmp_path, backbone=Network(MADE[made]))(TOKENS, source=source), changed)
    assert torch.equal(me.eject()(TOKENS), plain)


@pytest.mark.parametrize("site", ["block", "block.0"])
def test_a_scripted_site_is_refused(site: str) -> None:
    with complains(InjectionError, f"site '{site}'", "takes no hook", "torch.jit at block"):
        inject(Network(torch.jit.script), layers=site, source_spec=ViewSpec.tokens(6), example_inputs=TOKENS)


def test_a_module_inside_a_traced_one_never_fires() -> None:
    with complains(SiteError, "site 'block.0'", "never fires"):
        inject(Network(MADE["traced"]), layers="block.0", source_spec=ViewSpec.tokens(6), example_inputs=TOKENS)


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(10, 6)

    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        out: Tensor = self.table(ids) * attention_mask.unsqueeze(2)
        return out


@pytest.mark.parametrize("by_name", [True, False])
def test_a_traced_source_gives_its_features_and_mask(by_name: bool) -> None:
    ids, mask = torch.arange(12).view(2, 6) % 10, torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    batch: Any = {"ids": ids, "attention_mask": mask} if by_name else (ids, mask)
    words = Words()
    traced = torch.jit.trace(words, (ids, mask))
    options: dict[str, Any] = {"layers": "first", "example_inputs": TOKENS, "source_example_inputs": batch}
    features = inject(Network(nn.Sequential), source_encoder=traced, **options).encode(batch)
    assert torch.equal(features.data, words(ids, mask))
    assert features.mask is not None
    assert torch.equal(features.mask, mask.bool())


@pytest.mark.parametrize("role", ["model", "source_encoder"])
def test_a_scripted_model_is_refused_with_the_way_out(role: str) -> None:
    scripted = torch.jit.script(Network(nn.Sequential))
    given: dict[str, Any] = {"model": Network(nn.Sequential), "source_encoder": nn.Identity(), role: scripted}
    with complains(InjectionError, role, "torch.jit", "whose forward calls it"):
        inject(**given, layers="block", example_inputs=TOKENS, source_example_inputs=TOKENS)


def test_a_scripted_source_in_a_module_is_read() -> None:
    scripted = torch.jit.script(nn.Linear(4, 6))

    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = scripted

        def forward(self, x: Tensor) -> Any:
            return self.inner(x)

    me = inject(
        Network(nn.Sequential), layers="block", source_encoder=Around(), example_inputs=TOKENS,
        source_example_inputs=TOKENS,
    )  # fmt: skip
    assert torch.equal(me.encode(TOKENS).data, scripted(TOKENS))
