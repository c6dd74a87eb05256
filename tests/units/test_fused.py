"""The fused path (`scaled_dot_product_attention`): forced on the CPU, and as it runs on a GPU: `pytest -m gpu`."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from mi2p_inject import MI2P, SourceFeatures, ViewSpec, inject
from mi2p_inject.sources.features import prepare
from mi2p_inject.units import Unit, attention, product_order

MAP, TOKENS = ViewSpec.map(24, 6, 6), ViewSpec.tokens(48)
VIEWS = pytest.mark.parametrize(
    ("site", "source"), [(a, b) for a in (MAP, TOKENS) for b in (MAP, TOKENS)], ids=lambda spec: spec.kind
)
GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; the CPU tests force the same path"),
]


def gradients(unit: Unit, view: Tensor, data: Tensor, mask: Tensor | None) -> list[Tensor]:
    """The residual, and the gradients of view, source and parameters."""
    view, data = (one.detach().requires_grad_() for one in (view, data))
    unit.zero_grad()
    residual = unit(view, prepare(SourceFeatures(data, mask), unit.source, torch.float32))
    weight = torch.linspace(-1, 1, residual.numel(), device=residual.device).view_as(residual)
    residual.float().mul(weight).sum().backward()
    found = [residual, view.grad, data.grad, *(one.grad for one in unit.parameters())]
    return [one for one in found if one is not None]


def example(site: ViewSpec, source: ViewSpec) -> tuple[Unit, Tensor, Tensor, Tensor | None]:
    torch.manual_seed(0)
    unit: Unit = MI2P(num_heads=3, head_dim=16, zero_init=None).build(site, source)
    view, data = (
        torch.randn(3, one.width, *one.grid) if one.grid else torch.randn(3, 7 + more, one.width)
        for more, one in enumerate((site, source))
    )
    mask = None if source.grid else torch.arange(8) < torch.tensor([8, 3, 0]).unsqueeze(1)
    return unit, view, data, mask


@VIEWS
def test_the_fused_path_gives_the_plain_one_s_numbers(
    site: ViewSpec, source: ViewSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Residual and every gradient; with padding, and a row without any token."""
    given = example(site, source)
    found = {}
    for kernel, two_widths in (("plain", False), ("fused", False), ("fused", True)):
        monkeypatch.setattr(attention, "kernel_for", lambda *args, kernel=kernel: kernel)
        monkeypatch.setattr(attention, "takes_two_widths", lambda device, two_widths=two_widths: two_widths)
        calls: list[object] = []
        fused = attention._fused
        monkeypatch.setattr(attention, "_fused", lambda *args: calls.append(0) or fused(*args))  # noqa: B023
        found[kernel, two_widths] = gradients(*given)
        monkeypatch.setattr(attention, "_fused", fused)
        assert bool(calls) is (kernel == "fused")
    for plain, *fused_ones in zip(*found.values(), strict=True):
        for fused_one in fused_ones:
            torch.testing.assert_close(fused_one, plain, atol=2e-5, rtol=2e-4)


@pytest.mark.parametrize("site", [MAP, TOKENS], ids=lambda spec: spec.kind)
@pytest.mark.parametrize("source", [MAP, TOKENS], ids=lambda spec: spec.kind)
def test_autocast_to_bfloat16_on_the_fused_path(
    site: ViewSpec, source: ViewSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit, view, data, mask = example(site, source)
    wanted = unit(view, prepare(SourceFeatures(data, mask), unit.source, torch.float32))
    monkeypatch.setattr(attention, "kernel_for", lambda *args: "fused")
    with torch.autocast("cpu", torch.bfloat16):
        found = unit(view, prepare(SourceFeatures(data, mask), unit.source, torch.float32))
    assert float((found.float() - wanted).detach().norm() / wanted.detach().norm()) < 0.03


class TestOnAGpu:
    """What a CPU cannot show: the device's own kernels, in the precisions that people train in."""

    pytestmark = GPU

    @VIEWS
    @pytest.mark.parametrize("many", [product_order.MANY, 0], ids=["few scores", "many"])
    def test_numbers_and_gradients_are_the_cpu_s(
        self, site: ViewSpec, source: ViewSpec, many: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(product_order, "MANY", many)
        unit, view, data, mask = example(site, source)
        wanted = gradients(unit, view, data, mask)
        there = copy.deepcopy(unit).cuda(), view.cuda(), data.cuda(), None if mask is None else mask.cuda()
        for on_gpu, on_cpu in zip(gradients(*there), wanted, strict=True):
            torch.testing.assert_close(on_gpu.cpu(), on_cpu, atol=2e-3, rtol=2e-3)

    @VIEWS
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    @pytest.mark.parametrize("many", [product_order.MANY, 0], ids=["few scores", "many"])
    def test_amp(
        self, site: ViewSpec, source: ViewSpec, dtype: torch.dtype, many: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(product_order, "MANY", many)
        unit, view, data, mask = example(site, source)
        wanted = gradients(unit, view, data, mask)
        there = copy.deepcopy(unit).cuda(), view.cuda(), data.cuda(), None if mask is None else mask.cuda()
        with torch.autocast("cuda", dtype):
            found = gradients(*there)
        for on_gpu, on_cpu in zip(found, wanted, strict=True):
            assert torch.isfinite(on_gpu).all()
            assert float((on_gpu.cpu().float() - on_cpu).norm() / on_cpu.norm().clamp(min=1e-6)) < 0.05

    @pytest.mark.parametrize(
        ("site", "source"),
        [(ViewSpec.map(1024, 7, 7), ViewSpec.tokens(768)), (ViewSpec.tokens(768), ViewSpec.map(1024, 7, 7))],
        ids=["DenseNet reads BERT", "BERT reads DenseNet"],
    )
    def test_sizes_of_real_models(self, site: ViewSpec, source: ViewSpec) -> None:
        """cuDNN takes over at sizes that small units do not have, and fails on queries whose heads share memory."""
        torch.manual_seed(0)
        unit = MI2P(zero_init=None).build(site, source).cuda()
        view, data = (
            torch.randn(8, one.width, *one.grid) if one.grid else torch.randn(8, 64, 768) for one in (site, source)
        )
        wanted = gradients(copy.deepcopy(unit).cpu(), view, data, None)
        with torch.autocast("cuda", torch.bfloat16):
            found = gradients(unit, view.cuda(), data.cuda(), None)
        for on_gpu, on_cpu in zip(found, wanted, strict=True):
            assert float((on_gpu.cpu().float() - on_cpu).norm() / on_cpu.norm().clamp(min=1e-6)) < 0.05

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_compiled(self, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        x, source = torch.randn(4, 3, 6, 6), torch.randn(4, 5, 48)
        me = inject(net, "0", source_spec=TOKENS, example_inputs=x, zero_init=None).cuda()
        compiled = torch.compile(me, fullgraph=True)
        with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            given = SourceFeatures(source.cuda())
            found, wanted = compiled(x.cuda(), source=given), me(x.cuda(), source=given)
        torch.testing.assert_close(found, wanted, atol=2e-2, rtol=2e-2)
        found.float().sum().backward()
        assert all(torch.isfinite(one.grad).all() for one in me.parameters() if one.grad is not None)
