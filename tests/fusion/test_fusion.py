"""Late fusion: one contract for every row of the table, and each strategy against its formula."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from mi2p_inject.core.errors import FusionError
from mi2p_inject.fusion import (
    FUSIONS,
    ConcatFusion,
    CrossAttentionFusion,
    Fusion,
    ScoreFusion,
    build_fusion,
    mean_scores,
)

WIDTHS = (5, 3)


def vectors(rows: int = 4, widths: tuple[int, ...] = WIDTHS) -> list[Tensor]:
    generator = torch.Generator().manual_seed(rows)
    return [torch.randn(rows, width, generator=generator) for width in widths]


CASES = [(name, {}) for name in FUSIONS] + [("gmu", {"form": "code"}), ("gated-bilinear", {"gate": 0})]
Case = tuple[str, dict[str, Any]]


def built(case: Case, multi_label: bool = False) -> Fusion:
    torch.manual_seed(0)
    return build_fusion(case[0], WIDTHS, 3, multi_label=multi_label, options=case[1])


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join([case[0], *map(str, case[1].values())]))
class TestContract:
    def test_gives_finite_logits_and_trains_every_parameter(self, case: Case, multi_label: bool) -> None:
        fusion, inputs = built(case, multi_label), [vector.requires_grad_() for vector in vectors()]
        logits = fusion(inputs)
        assert logits.shape == (4, 3)
        (logits * torch.randn(4, 3)).sum().backward()
        for tensor in [*fusion.parameters(), *inputs]:
            assert tensor.grad is not None
            assert tensor.grad.isfinite().all()
            assert tensor.grad.abs().sum() > 0

    def test_a_missing_vector_has_no_effect_and_no_gradient(self, case: Case, multi_label: bool) -> None:
        fusion = built(case, multi_label)
        there = [torch.tensor([True, False, True, False]), torch.tensor([True, True, False, False])]
        first, second = vectors(), vectors()
        for vector, mask in zip(second, there, strict=True):
            vector[~mask] = math.nan
            vector.requires_grad_()
        torch.manual_seed(1)  # of dropout
        output = fusion(second, there)
        torch.manual_seed(1)
        assert torch.equal(output, fusion(first, there))
        output.sum().backward()
        for vector, mask in zip(second, there, strict=True):
            assert vector.grad is not None
            assert (vector.grad[~mask] == 0).all()
            assert output.isfinite().all()
        assert all(p.grad is None or p.grad.isfinite().all() for p in fusion.parameters())

    def test_rows_are_independent(self, case: Case, multi_label: bool) -> None:
        fusion, inputs = built(case, multi_label).eval(), vectors()
        there = [torch.tensor([True, False, True, True]), torch.tensor([True, True, False, True])]
        whole = fusion(inputs, there)
        for row in range(4):
            one = fusion([v[row : row + 1] for v in inputs], [mask[row : row + 1] for mask in there])
            assert torch.allclose(one[0], whole[row], atol=1e-6)

    @pytest.mark.parametrize("shapes", [[], [(4, 5)], [(4, 3), (4, 5)], [(4, 5), (5, 3)], [(5,), (3,)]])
    def test_names_vectors_that_do_not_fit(self, case: Case, multi_label: bool, shapes: list[tuple[int, ...]]) -> None:
        with pytest.raises(FusionError, match=r"\(B, 5\), \(B, 3\)"):
            built(case, multi_label)([torch.zeros(shape) for shape in shapes])

    def test_names_masks_that_do_not_fit(self, case: Case, multi_label: bool) -> None:
        fusion = built(case, multi_label)
        for masks in ([], [torch.ones(4, dtype=torch.bool)], [torch.ones(4), torch.ones(4)]):
            with pytest.raises(FusionError, match="2 bool tensors"):
                fusion(vectors(), masks)

    def test_names_sizes_that_do_not_fit(self, case: Case, multi_label: bool) -> None:
        for widths, classes in (([], 3), ([5, 0], 3), ([5, 3], 0)):
            with pytest.raises(FusionError, match="cannot be built"):
                FUSIONS[case[0]](widths, classes, multi_label=multi_label)

    def test_save_and_load_give_the_same_numbers(self, case: Case, multi_label: bool, tmp_path: Path) -> None:
        """What was drawn at random when it was made is saved with it, and what it is trained with moves in training."""
        fusion = built(case, multi_label).train()
        fusion(vectors())
        save_file(fusion.state_dict(), tmp_path / "fusion.safetensors")
        torch.manual_seed(99)
        again = build_fusion(case[0], WIDTHS, 3, multi_label=multi_label, options=case[1])
        again.load_state_dict(load_file(tmp_path / "fusion.safetensors"))
        assert torch.equal(again.eval()(vectors()), fusion.eval()(vectors()))

    def test_half_precision_and_batches_of_one(self, case: Case, multi_label: bool) -> None:
        fusion = built(case, multi_label)
        for count in (0, 1):
            there = [torch.ones(count, dtype=torch.bool), torch.zeros(count, dtype=torch.bool)]
            assert fusion.train()(vectors(count), there).shape == (count, 3)
        whole = fusion.eval()(vectors())
        for dtype in (torch.float16, torch.bfloat16):
            half = copy.deepcopy(fusion).to(dtype)([vector.to(dtype) for vector in vectors()])
            torch.testing.assert_close(half.float(), whole, atol=0.05, rtol=0.05)
            with torch.autocast("cpu", dtype):
                torch.testing.assert_close(fusion(vectors()).float(), whole, atol=0.05, rtol=0.05)


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.booleans(), st.integers(0, 2**16))
@settings(max_examples=40, deadline=None)
def test_score_is_the_mean_over_the_branches_that_are_there(
    branches: int, rows: int, classes: int, multi_label: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(branches, rows, classes, generator=generator) * 4
    present = torch.rand(branches, rows, generator=generator) < 0.6
    fused = mean_scores(logits, present, multi_label=multi_label)
    probabilities = fused.sigmoid() if multi_label else fused.softmax(-1)
    for row in range(rows):
        there = [branch for branch in range(branches) if present[branch, row]] or list(range(branches))
        for column in range(classes):
            scores = []
            for branch in there:
                one = [math.exp(value) for value in logits[branch, row].tolist()]
                scores.append(one[column] / (1 + one[column]) if multi_label else one[column] / sum(one))
            assert probabilities[row, column].item() == pytest.approx(sum(scores) / len(scores), abs=1e-5)


def test_score_stays_finite_far_out() -> None:
    far = torch.tensor([[[200.0, -200.0]], [[-200.0, 200.0]]], requires_grad=True)
    for multi_label in (False, True):
        fused = mean_scores(far, multi_label=multi_label)
        assert torch.allclose(fused.sigmoid() if multi_label else fused.softmax(-1), torch.tensor([[0.5, 0.5]]))
        (gradient,) = torch.autograd.grad(fused.sum(), far)
        assert gradient.isfinite().all()


def test_score_of_one_branch_is_a_linear_classifier() -> None:
    fusion = ScoreFusion([5], 3)
    vector = torch.randn(2, 5)
    head = fusion.heads[0]
    assert torch.equal(fusion([vector]), vector @ head.weight.T + head.bias)


def test_concat_is_its_formula() -> None:
    fusion = ConcatFusion(WIDTHS, 3)
    v, t = vectors()
    weight, bias = fusion.head.weight, fusion.head.bias
    assert torch.allclose(fusion([v, t]), v @ weight[:, :5].T + t @ weight[:, 5:].T + bias, atol=1e-6)


def test_cross_attention_is_its_formula() -> None:
    fusion = CrossAttentionFusion(WIDTHS, 3, width=7)
    v, t = vectors()

    def linear(layer: torch.nn.Linear, x: Tensor) -> Tensor:
        return x @ layer.weight.T + layer.bias

    v_, t_ = linear(fusion.projections[0], v).clamp(min=0), linear(fusion.projections[1], t).clamp(min=0)
    alpha_v = 1 / (1 + torch.exp(-linear(fusion.gates[0], t_)))
    alpha_t = 1 / (1 + torch.exp(-linear(fusion.gates[1], v_)))
    expected = linear(fusion.head, torch.cat([alpha_v * v_, alpha_t * t_], dim=1))
    assert torch.allclose(fusion([v, t]), expected, atol=1e-6)
    alone = linear(fusion.head, torch.cat([v_, torch.zeros(4, 7)], dim=1))  # nothing of the text, and no gate
    there = [torch.ones(4, dtype=torch.bool), torch.zeros(4, dtype=torch.bool)]
    assert torch.allclose(fusion([v, t], there), alone, atol=1e-6)


def test_cross_attention_takes_two_branches_and_a_width() -> None:
    for widths in ([5], [5, 3, 2]):
        with pytest.raises(FusionError, match="widths of 2 branches"):
            CrossAttentionFusion(widths, 3)
    with pytest.raises(FusionError, match="width"):
        CrossAttentionFusion(WIDTHS, 3, width=0)
