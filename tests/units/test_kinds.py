"""What every unit kind guarantees, over the whole table and all combinations of views; see `Unit`."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from helpers import complains
from torch import Tensor, nn

from mi2p_inject import SourceFeatures, ViewSpec
from mi2p_inject.core.errors import LayoutError, UnitError
from mi2p_inject.report.cost import unit_cost
from mi2p_inject.sources.features import prepare
from mi2p_inject.sources.prepared import PreparedSource
from mi2p_inject.units import UNITS, Unit, unit_config

VIEWS = {"map": ViewSpec.map(6, 3, 4), "tokens": ViewSpec.tokens(6)}
SOURCES = {"map": ViewSpec.map(5, 2, 3), "tokens": ViewSpec.tokens(5)}
REFUSED = {("mmtm", "tokens", "map"), ("mmtm", "tokens", "tokens")}
"""(kind, site, source) that make no sense."""

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in UNITS),
    ("cross-attention", {"num_heads": 3, "head_dim": 2, "source_norm": False}),
    ("film", {"scale": True, "source_norm": False}),
    ("mmtm", {"reduction": 2, "source_norm": True}),
]
ALL = [
    pytest.param((name, options, site, source), id=f"{name}{'+' if options else ''}-{site}-{source}")
    for name, options in VARIANTS
    for site in VIEWS
    for source in SOURCES
    if (name, site, source) not in REFUSED
]
Case = tuple[str, dict[str, Any], str, str]
LORA_TARGETS = {  # attribute names that adapters of known models ask for
    "query", "key", "value", "dense", "fc", "fc1", "fc2", "proj", "q_proj", "k_proj", "v_proj", "o_proj",
    "out_proj", "linear", "linear1", "linear2", "qkv", "to_q", "to_k", "to_v", "to_out", "in_proj", "c_attn",
    "c_proj", "c_fc", "q", "k", "v", "o", "wi", "wo", "lin1", "lin2", "q_lin", "k_lin", "v_lin", "out_lin",
    "query_key_value", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3", "mlp", "classifier", "head", "score",
    "attention",
}  # fmt: skip


def built(case: Case) -> Unit:
    name, options, site, source = case
    torch.manual_seed(0)
    return unit_config(name, options).build(VIEWS[site], SOURCES[source])


def randomised(case: Case) -> Unit:
    unit = built(case)
    for parameter in unit.parameters():
        nn.init.normal_(parameter, std=0.5)
    return unit


def view_of(unit: Unit, batch: int = 3, grid: tuple[int, int] | None = None, length: int = 4) -> Tensor:
    shape = (batch, unit.site.width, *(grid or unit.site.grid)) if unit.site.grid else (batch, length, unit.site.width)
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def features_of(unit: Unit, batch: int = 3, length: int = 4) -> Tensor:
    spec = unit.source
    shape = (batch, spec.width, *spec.grid) if spec.grid else (batch, length, spec.width)
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def source_of(unit: Unit, batch: int = 3, dtype: torch.dtype = torch.float32, **more: Any) -> PreparedSource:
    return prepare(SourceFeatures(features_of(unit, batch), more.pop("mask", None)), unit.source, dtype, **more)


@pytest.mark.parametrize("name", UNITS)
def test_every_kind_has_some_form_and_refuses_the_rest_by_name(name: str) -> None:
    combinations = {(name, site, source) for site in VIEWS for source in SOURCES}
    assert combinations - REFUSED
    for _, site, source in combinations & REFUSED:
        with complains(UnitError, f"'{name}'", "site map", "choose sites that are maps"):
            UNITS[name].build(VIEWS[site], SOURCES[source])


@pytest.mark.parametrize("case", ALL)
class TestContract:
    def test_starts_at_zero_with_a_gradient_somewhere_and_no_parameter_unused(self, case: Case) -> None:
        unit = built(case)
        for training in (False, True):
            residual = unit.train(training)(view_of(unit), source_of(unit))
            assert residual.shape == view_of(unit).shape
            assert torch.equal(residual, torch.zeros_like(residual))
        (residual * torch.linspace(-1, 2, residual.numel()).view_as(residual)).sum().backward()
        gradients = [parameter.grad for parameter in unit.parameters()]
        assert all(gradient is not None for gradient in gradients)  # DDP waits for every one
        assert sum(float(gradient.abs().sum()) for gradient in gradients if gradient is not None) > 0

    def test_after_one_step_every_parameter_has_a_gradient(self, case: Case) -> None:
        unit = built(case).double()
        optimizer = torch.optim.SGD(unit.parameters(), 0.5)
        for _ in range(2):
            optimizer.zero_grad()
            residual = unit(view_of(unit).double(), source_of(unit, dtype=torch.float64))
            (residual * torch.linspace(-1, 2, residual.numel()).view_as(residual)).sum().backward()
            optimizer.step()
        for name, parameter in unit.named_parameters():
            assert parameter.grad is not None
            assert parameter.grad.abs().sum() > 1e-9, name  # less is rounding

    def test_missing_rows_are_exactly_zero_and_touch_no_gradient(self, case: Case) -> None:
        unit = randomised(case)
        features = features_of(unit)
        features[1] = float("nan")
        there = torch.tensor([True, False, True])
        view = view_of(unit).requires_grad_()
        residual = unit(view, prepare(SourceFeatures(features), unit.source, view.dtype, source_mask=there))
        assert torch.equal(residual[1], torch.zeros_like(residual[1]))
        assert residual[0].abs().sum() > 0
        torch.testing.assert_close(residual[[0, 2]], unit(view, source_of(unit))[[0, 2]])
        wanted = [view, *unit.parameters()]
        gradients = torch.autograd.grad(residual.sum(), wanted, allow_unused=True, materialize_grads=True)
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)
        assert not gradients[0][1].any()

    def test_rows_are_independent(self, case: Case) -> None:
        unit = randomised(case)
        whole = unit(view_of(unit), source_of(unit))
        for row in range(3):
            one = prepare(SourceFeatures(features_of(unit)[row : row + 1]), unit.source, torch.float32)
            torch.testing.assert_close(unit(view_of(unit)[row : row + 1], one)[0], whole[row])

    def test_padding_does_not_count(self, case: Case) -> None:
        unit = randomised(case)
        if unit.source.kind == "map":
            return
        words = features_of(unit)
        padded = torch.cat([words, torch.full((3, 2, unit.source.width), 1e4)], 1)
        mask = torch.tensor([[True] * 4 + [False] * 2, [True] * 2 + [False] * 4, [False] * 6])
        residual = unit(view_of(unit), prepare(SourceFeatures(padded, mask), unit.source, torch.float32))
        torch.testing.assert_close(residual[0], unit(view_of(unit), source_of(unit))[0])
        short = prepare(SourceFeatures(words[1:2, :2]), unit.source, torch.float32)
        torch.testing.assert_close(residual[1:2], unit(view_of(unit)[1:2], short))
        assert torch.equal(residual[2], torch.zeros_like(residual[2]))

    def test_no_tokens_at_all_and_no_rows_at_all(self, case: Case) -> None:
        unit = randomised(case)
        empty = source_of(unit, batch=0)
        assert unit(view_of(unit, batch=0), empty).shape == view_of(unit, batch=0).shape
        if unit.source.kind == "tokens":
            nothing = prepare(SourceFeatures(torch.zeros(3, 0, unit.source.width)), unit.source, torch.float32)
            residual = unit(view_of(unit), nothing)
            assert torch.equal(residual, torch.zeros_like(residual))

    def test_views_of_other_sizes_but_not_of_other_widths(self, case: Case) -> None:
        unit = randomised(case)
        view = view_of(unit, grid=(5, 2), length=7)
        assert unit(view, source_of(unit)).shape == view.shape
        wrong = torch.cat([view, view], 1 if unit.site.grid else 2)
        with complains(LayoutError, "another width"):
            unit(wrong, source_of(unit))

    def test_compiles_as_one_graph(self, case: Case) -> None:
        torch._dynamo.reset()
        unit = randomised(case)
        compiled = torch.compile(unit, fullgraph=True, backend="eager")
        there = torch.tensor([True, False, True])
        torch.testing.assert_close(
            compiled(view_of(unit), source_of(unit, source_mask=there)),
            unit(view_of(unit), source_of(unit, source_mask=there)),
        )

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_near_and_has_the_views_dtype(self, case: Case, dtype: torch.dtype) -> None:
        unit = randomised(case)
        whole = unit(view_of(unit), source_of(unit))
        half = copy.deepcopy(unit).to(dtype)(view_of(unit).to(dtype), source_of(unit, dtype=dtype))
        near = {"atol": 0.05 * float(whole.detach().abs().max()), "rtol": 0.1}
        assert half.dtype == dtype
        torch.testing.assert_close(half.float(), whole, **near)
        with torch.autocast("cpu", dtype):
            for view in (view_of(unit), view_of(unit).to(dtype)):
                mixed = unit(view, source_of(unit))
                torch.testing.assert_close(mixed.float(), whole, **near)

    @pytest.mark.parametrize("scale", [300.0, 1e4])
    def test_float16_gives_the_float32_result_of_large_features_too(self, case: Case, scale: float) -> None:
        unit = randomised(case).half().float()  # weights that float16 holds exactly
        view, features = view_of(unit).half(), (scale * features_of(unit)).half()
        whole = unit(view.float(), prepare(SourceFeatures(features.float()), unit.source, torch.float32))
        half = copy.deepcopy(unit).half()
        found = half(view, prepare(SourceFeatures(features), unit.source, torch.float16))
        assert found.dtype == torch.float16
        torch.testing.assert_close(found.float(), whole.clamp(-65504, 65504), atol=1e-3 * scale, rtol=2e-3)
        (found.float() / scale).sum().backward()
        assert all(bool(parameter.grad.isfinite().all()) for parameter in half.parameters())
        with torch.autocast("cpu", torch.float16):
            mixed = unit(view, prepare(SourceFeatures(features.float()), unit.source, torch.float32))
        torch.testing.assert_close(mixed.float(), whole.clamp(-65504, 65504), atol=1e-3 * scale, rtol=2e-3)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
    def test_huge_features_stay_finite(self, case: Case, dtype: torch.dtype) -> None:
        unit = randomised(case).to(dtype)
        data = SourceFeatures(1e29 * features_of(unit).to(dtype))
        found = unit(view_of(unit).to(dtype), prepare(data, unit.source, dtype))
        assert found.isfinite().all()
        (found.float() / 1e29).sum().backward()
        assert all(bool(parameter.grad.isfinite().all()) for parameter in unit.parameters())

    def test_copies_pickles_and_the_meta_device(self, case: Case) -> None:
        unit = randomised(case)
        expected = unit(view_of(unit), source_of(unit))
        for again in (copy.deepcopy(unit), pickle.loads(pickle.dumps(unit))):
            assert torch.equal(again(view_of(unit), source_of(unit)), expected)
        with torch.device("meta"):
            empty = unit_config(case[0], case[1]).build(unit.site, unit.source)
        assert [tuple(p.shape) for p in empty.parameters()] == [tuple(p.shape) for p in unit.parameters()]

    def test_says_what_it_costs(self, case: Case) -> None:
        unit = built(case)
        cost = unit_cost(unit_config(case[0], case[1]), unit.site, unit.source, 8, 4, 4)
        assert cost.parameters == sum(parameter.numel() for parameter in unit.parameters())
        assert cost.described == unit.describe()
        assert cost.flops > 0

    def test_lora_for_a_backbone_does_not_hit_its_layers(self, case: Case) -> None:
        names = [part for name, _ in built(case).named_modules() if name for part in name.split(".")]
        assert names
        assert not {*names} & LORA_TARGETS


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [("film", {"scale": 1}, "scale"), ("film", {"source_norm": "yes"}, "source_norm"),
     ("film", {"num_heads": 4}, "no option 'num_heads'"), ("film", {"source_nrom": True}, "did you mean 'source_norm'"),
     ("mmtm", {"reduction": 0}, "reduction"), ("mmtm", {"source_norm": None}, "source_norm"),
     ("cross-attention", {"num_heads": 0}, "num_heads"), ("cross-attention", {"head_dim": True}, "head_dim"),
     ("cross-attention", {"source_norm": 1}, "source_norm"), ("cross-attention", {"heads": 2}, "called num_heads"),
     ("cros-attention", {}, "did you mean 'cross-attention'"), ("flim", {}, "did you mean 'film'")],
)  # fmt: skip
def test_bad_options(name: str, options: dict[str, Any], words: str) -> None:
    with complains(UnitError, words):
        unit_config(name, options)


@pytest.mark.parametrize("name", ["film", "mmtm", "cross-attention"])
def test_a_source_of_one_number_cannot_be_normalised(name: str) -> None:
    with complains(UnitError, "width 1", "source_norm=False"):
        unit_config(name, {"source_norm": True}).build(VIEWS["map"], ViewSpec.tokens(1))
    unit_config(name, {"source_norm": False}).build(VIEWS["map"], ViewSpec.tokens(1))
