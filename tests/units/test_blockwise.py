"""Attention in blocks against softmax(QKᵀ)V of the whole, whatever the blocks and the pieces of their rows."""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mi2p_inject.units.cpu_kernel import block_parts
from mi2p_inject.units.cpu_kernel.blockwise import attend_in_blocks
from mi2p_inject.units.token_factors import TokenFactors


def whole(queries: Tensor, keys: TokenFactors, values: TokenFactors, mask: Tensor | None, width: int) -> Tensor:
    """The same, as it is written."""
    groups = max(len(queries), len(keys.given), len(values.given))
    rows = []
    for group in range(groups):
        q, k, v = (
            one[group * len(one) // groups]
            for one in (queries, keys.whole(queries.shape[2]), values.whole(width))
        )  # fmt: skip
        scores = q @ k.T
        if mask is not None:
            scores = scores.masked_fill(~mask[group * len(mask) // groups], -torch.inf)
        rows.append(scores.softmax(-1) @ v)
    return torch.stack(rows)


def factors(groups: int, tokens: int, width: int, learned: int, strong: bool, seed: int) -> TokenFactors:
    torch.manual_seed(seed)
    given = torch.randn(groups, tokens, width, dtype=torch.float64, requires_grad=seed % 2 == 0)
    if not learned:
        return TokenFactors(given)
    embedding = torch.randn(tokens, learned, dtype=torch.float64, requires_grad=True)
    strengths = torch.randn(groups, tokens, dtype=torch.float64, requires_grad=seed % 3 == 0) if strong else None
    return TokenFactors(given, embedding, strengths)


def leaves(*sides: TokenFactors) -> list[Tensor]:
    parts = [part for one in sides for part in (one.given, one.learned, one.strengths)]
    return [part for part in parts if part is not None and part.requires_grad]


@settings(max_examples=300, deadline=None)
@given(
    samples=st.integers(1, 4),
    num_heads=st.integers(1, 3),
    shared=st.sampled_from(["queries", "keys and values", "values", "nothing"]),
    rows=st.integers(1, 8),
    tokens=st.integers(1, 5),
    learned=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    strong=st.booleans(),
    fill=st.integers(0, 2),
    masked=st.booleans(),
    block=st.sampled_from([1, 12, 40, 2**20]),
    least_rows=st.sampled_from([1, 2, 64]),
    many=st.sampled_from([0, 2**18]),
    seed=st.integers(0, 2**16),
)
def test_equals_the_whole(
    samples: int,
    num_heads: int,
    shared: str,
    rows: int,
    tokens: int,
    learned: tuple[int, int],
    strong: bool,
    fill: int,
    masked: bool,
    block: int,
    least_rows: int,
    many: int,
    seed: int,
) -> None:
    all_groups = samples * num_heads
    of_queries = samples if shared == "queries" else all_groups
    of_keys = samples if shared == "keys and values" else all_groups
    of_values = samples if "values" in shared else all_groups
    keys, values = (
        factors(of_keys, tokens, 3, learned[0], False, seed),
        factors(of_values, tokens, 2, learned[1], strong, seed),
    )
    queries = torch.randn(of_queries, rows, keys.width + fill, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(samples, tokens) < 0.6 if masked else None
    if mask is not None:
        mask[:, 0] = True
    width = values.width + fill
    wanted = [queries, *leaves(keys, values)]
    expected = whole(queries, keys, values, mask, width)
    weight = torch.randn_like(expected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_parts, "BLOCK", block)
        patch.setattr(block_parts, "LEAST_ROWS", least_rows)
        patch.setattr(block_parts, "MANY", many)
        found = attend_in_blocks(queries, keys, values, mask, width)
        ours = torch.autograd.grad(found, wanted, weight)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)
    for one, other in zip(ours, torch.autograd.grad(expected, wanted, weight), strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("level", [0.0, 300.0, -300.0])
@pytest.mark.parametrize("width", [2, 9])
def test_scores_far_from_zero_lose_nothing(level: float, width: int) -> None:
    """The first sample's are near zero; exponentials of 300 and -300 are no numbers of single precision."""
    torch.manual_seed(0)
    queries, keys, values = torch.randn(3, 5, 4), torch.randn(3, 6, 4), torch.randn(3, 6, width)
    queries[..., 0], keys[..., 0] = 1, 0
    keys[1:, :, 0] = level
    wanted = [one.requires_grad_() for one in (queries, keys, values)]
    exact = [one.detach().double().requires_grad_() for one in wanted]
    found = attend_in_blocks(queries, TokenFactors(keys), TokenFactors(values), None, width)
    expected = whole(exact[0], TokenFactors(exact[1]), TokenFactors(exact[2]), None, width)
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)
    weight = torch.randn_like(found)
    theirs = torch.autograd.grad(expected, exact, weight.double())
    for one, other in zip(torch.autograd.grad(found, wanted, weight), theirs, strict=True):
        torch.testing.assert_close(one.double(), other, atol=1e-3 * (1 + abs(level)), rtol=1e-3)


def test_no_large_buffer_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A high-resolution source would leave its size behind in every thread that ever ran it."""
    monkeypatch.setattr(block_parts, "BLOCK", 64)
    monkeypatch.setattr(block_parts, "_buffers", threading.local())
    values = TokenFactors(torch.randn(2, 100, 3), torch.randn(100, 2), torch.randn(2, 100))
    attend_in_blocks(torch.randn(2, 4, 8), TokenFactors(torch.randn(2, 100, 8)), values, None, 5)
    assert all(kept.numel() <= 64 for kept in vars(block_parts._buffers).values())
    attend_in_blocks(
        torch.randn(2, 4, 8), TokenFactors(torch.randn(2, 6, 8)), TokenFactors(torch.randn(2, 6, 5)), None, 5
    )
    assert vars(block_parts._buffers)
