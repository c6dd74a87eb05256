"""The gated and bilinear fusions against their formulas, written out number by number in NumPy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from helpers import complains
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from mi2p_inject.core.errors import FusionError
from mi2p_inject.fusion import Fusion, build_fusion

Array = NDArray[np.float64]
widths = st.tuples(st.integers(1, 5), st.integers(1, 5))
there = st.tuples(st.booleans(), st.booleans())
seeds = st.integers(0, 2**16)


def built(name: str, sizes: tuple[int, int], seed: int, **options: Any) -> tuple[Fusion, list[Tensor]]:
    torch.manual_seed(seed)
    fusion = build_fusion(name, sizes, 3, options=options).double().eval()
    for parameter in fusion.parameters():
        nn.init.normal_(parameter)
    for buffer in fusion.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 2)
    return fusion, [torch.randn(1, size, dtype=torch.float64) for size in sizes]


def masks(present: tuple[bool, bool]) -> list[Tensor]:
    return [torch.tensor([here]) for here in present]


def close(found: Tensor, expected: Array) -> None:
    np.testing.assert_allclose(found[0].detach().numpy(), expected, atol=1e-10, rtol=1e-10)


def array(tensor: Tensor) -> Array:
    found: Array = tensor.detach().numpy()
    return found


def sigmoid(x: Array) -> Array:
    found: Array = 1 / (1 + np.exp(-x))
    return found


@given(widths, there, seeds, st.integers(1, 6), st.sampled_from(["paper", "code"]))
@settings(max_examples=60, deadline=None)
def test_gmu(sizes: tuple[int, int], present: tuple[bool, bool], seed: int, width: int, form: str) -> None:
    fusion, vectors = built("gmu", sizes, seed, width=width, form=form)
    v, t = (array(vector[0]) * here for vector, here in zip(vectors, present, strict=True))
    if form == "code":
        v, t = (
            array(norm.weight) * (x - array(norm.running_mean)) / np.sqrt(array(norm.running_var) + 1e-4)
            + array(norm.bias)
            for norm, x in zip(fusion.norms, (v, t), strict=True)
        )
    projected_v, projected_t = array(fusion.projections[0].weight) @ v, array(fusion.projections[1].weight) @ t
    read = np.concatenate([v, t] if form == "paper" else [projected_v, projected_t])
    z = sigmoid(array(fusion.gate.weight) @ read)
    if present == (True, True):
        h = z * np.tanh(projected_v) + (1 - z) * np.tanh(projected_t)
    else:  # the gate chooses the one that is there
        h = np.tanh(projected_v) * present[0] + np.tanh(projected_t) * present[1]
    close(fusion(vectors, masks(present)), array(fusion.head.weight) @ h + array(fusion.head.bias))


def bilinear(head: nn.Module, x: Array | None, y: Array | None) -> Array:
    """Each product of two numbers to its place; no Fourier transform. A missing sketch is a one at place 0."""
    size = head.sketch_width
    places = [array(head.get_buffer(f"places_{side}")) for side in (0, 1)]
    signs = [array(head.get_buffer(f"signs_{side}")).astype(float) for side in (0, 1)]
    one = (np.array([0]), np.array([1.0]), np.array([1.0]))
    first, second = (
        one if vector is None else (places[side], signs[side], vector) for side, vector in ((0, x), (1, y))
    )
    pooled = np.zeros(size)
    for i, s, a in zip(*first, strict=True):
        for j, r, b in zip(*second, strict=True):
            pooled[(i + j) % size] += s * r * a * b
    rooted = np.array([math.copysign(math.sqrt(abs(number) + 1e-8) - 1e-4, number) for number in pooled])
    normed = rooted / max(math.sqrt(float((rooted**2).sum())), 1e-12)
    logits: Array = array(head.classify.weight) @ normed + array(head.classify.bias)
    return logits


@given(widths, there, seeds, st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_compact_bilinear(sizes: tuple[int, int], present: tuple[bool, bool], seed: int, sketch_width: int) -> None:
    fusion, vectors = built("compact-bilinear", sizes, seed, sketch_width=sketch_width)
    x, y = (array(vector[0]) if here else None for vector, here in zip(vectors, present, strict=True))
    close(fusion(vectors, masks(present)), bilinear(fusion.head, x, y))


@given(widths, there, seeds, st.integers(1, 6), st.integers(1, 40), st.integers(0, 1))
@settings(max_examples=60, deadline=None)
def test_gated_bilinear(
    sizes: tuple[int, int], present: tuple[bool, bool], seed: int, width: int, sketch_width: int, gate: int
) -> None:
    fusion, vectors = built("gated-bilinear", sizes, seed, width=width, sketch_width=sketch_width, gate=gate)
    projected = [array(layer.weight) @ array(x[0]) for layer, x in zip(fusion.projections, vectors, strict=True)]
    u = sigmoid(projected[gate]) if present[gate] else np.ones(width)
    w = projected[1 - gate] if present[1 - gate] else None
    close(fusion(vectors, masks(present)), bilinear(fusion.head, w, u))


def test_a_sketch_keeps_inner_products_on_average() -> None:
    """Why it stands for the outer product: ⟨φ(x, y), φ(x', y')⟩ is ⟨x, x'⟩⟨y, y'⟩ but for noise that D makes small."""
    torch.manual_seed(0)
    fusion = build_fusion("compact-bilinear", (20, 30), 2, options={"sketch_width": 16_000}).double()
    head, everyone = fusion.head, torch.tensor([True, True])
    x, y = torch.rand(2, 20).double(), torch.rand(2, 30).double()
    sketches = [head._sketch(0, x, everyone), head._sketch(1, y, everyone)]
    pooled = torch.fft.irfft(torch.fft.rfft(sketches[0]) * torch.fft.rfft(sketches[1]), n=16_000)
    assert float(pooled[0] @ pooled[1]) == pytest.approx(float((x[0] @ x[1]) * (y[0] @ y[1])), rel=0.05)


def test_the_code_form_takes_its_statistics_from_what_is_there() -> None:
    torch.manual_seed(0)
    fusion = build_fusion("gmu", (4, 4), 2, options={"form": "code"}).train()
    x = torch.randn(6, 4) + 3
    some = torch.tensor([True, True, False, True, False, False])
    fusion([x, x], [some, torch.ones(6, dtype=torch.bool)])
    for norm, rows in zip(fusion.norms, (x[some], x), strict=True):
        torch.testing.assert_close(norm.running_mean, 0.1 * rows.mean(0))
        torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * rows.var(0))


def test_sketches_are_buffers_that_no_optimizer_sees() -> None:
    for name in ("compact-bilinear", "gated-bilinear"):
        fusion = build_fusion(name, (5, 3), 2, options={"sketch_width": 8})
        saved = {key.rpartition(".")[2] for key in fusion.state_dict()}
        assert {"places_0", "places_1", "signs_0", "signs_1"} <= saved
        assert not any("places" in key or "signs" in key for key, _ in fusion.named_parameters())
        assert set(fusion.head.signs_0.tolist()) <= {-1, 1}


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("gmu", {"width": 0}, "width"),
        ("gmu", {"form": "papr"}, "'paper' or 'code'"),
        ("compact-bilinear", {"sketch_width": 1.5}, "sketch_width"),
        ("compact-bilinear", {"dropout": 1}, "dropout"),
        ("compact-bilinear", {"dropout": "no"}, "dropout"),
        ("gated-bilinear", {"gate": 2}, "gate="),
        ("gated-bilinear", {"gate": True}, "gate="),
        ("gated-bilinear", {"width": -1}, "width"),
        ("cross-attention", {"width": None}, "width"),
    ],
)
def test_options_out_of_range(name: str, options: dict[str, Any], words: str) -> None:
    with complains(FusionError, words):
        build_fusion(name, (5, 3), 2, options=options)


@pytest.mark.parametrize("name", ["gmu", "compact-bilinear", "gated-bilinear"])
def test_two_branches_only(name: str) -> None:
    for sizes in ([5], [5, 3, 2]):
        with complains(FusionError, "widths of 2 branches"):
            build_fusion(name, sizes, 2)
