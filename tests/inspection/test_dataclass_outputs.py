"""Modules that return a dataclass: its one hidden state is found, or named; the rest of it is left as it came."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import complains, token_features
from torch import Tensor, nn

from mi2p_inject import Layout, inject, load
from mi2p_inject.core.errors import LayoutError
from mi2p_inject.testing import check_model

TOKENS = torch.randn(3, 7, 4, generator=torch.Generator().manual_seed(0))


@dataclass
class Output:
    hidden: Tensor
    pooled: Tensor
    note: str = "as it came"


@dataclass(frozen=True)
class Frozen:
    hidden: Tensor
    pooled: Tensor
    note: str = "as it came"


@dataclass(slots=True)
class Slots:
    hidden: Tensor
    pooled: Tensor
    note: str = "as it came"

    def __post_init__(self) -> None:
        self.pooled = self.pooled + 0


class Block(nn.Module):
    def __init__(self, made: Any, width: int) -> None:
        super().__init__()
        self.linear, self.made = nn.Linear(4, width), made

    def forward(self, x: Tensor) -> Any:
        hidden = self.linear(x)
        return self.made(hidden, hidden.mean(1))


class Network(nn.Module):
    def __init__(self, made: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.block, self.head = Block(made, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        found = self.block(x)
        if type(found) is not self.block.made or found.note != "as it came":
            raise TypeError(type(found))
        out: Tensor = self.head(found.hidden.mean(1) + found.pooled)
        return out


MADE = pytest.mark.parametrize("made", [Output, Frozen, Slots])


@MADE
def test_the_contract_with_the_one_hidden_state(made: Any) -> None:
    report = check_model(Network(made), layers="block", example_inputs=TOKENS, as_source=False)
    assert report.found("backbone") == ("block NLC['hidden']",)


@MADE
def test_it_is_saved_and_loaded(made: Any, tmp_path: Path) -> None:
    source = token_features(3)
    me = inject(Network(made), layers="block", source_spec=source.spec, example_inputs=TOKENS, zero_init=None)
    changed = me(TOKENS, source=source)
    assert not torch.equal(changed, me(TOKENS))
    me.save_pretrained(tmp_path)
    assert torch.equal(load(tmp_path, backbone=Network(made))(TOKENS, source=source), changed)


@MADE
def test_as_features_of_a_source(made: Any) -> None:
    encoder = Block(made, 6)
    me = inject(
        nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 5)), layers="0", example_inputs=TOKENS,
        source_encoder=encoder, source_example_inputs=TOKENS,
    )  # fmt: skip
    assert torch.equal(me.encode(TOKENS).data, encoder(TOKENS).hidden)


def test_a_named_element_and_one_that_is_not_there() -> None:
    options: dict[str, Any] = {"layers": "block", "source_spec": token_features(3).spec, "example_inputs": TOKENS}
    me = inject(Network(Output), layout=Layout("NLC", element="hidden"), **options)  # type: ignore[arg-type]
    assert me.sites[0].layout.element == "hidden"
    with complains(LayoutError, "site 'block'", "Output.hidden=Tensor"):
        inject(Network(Output), layout=Layout("NLC", element="hiden"), **options)  # type: ignore[arg-type]
