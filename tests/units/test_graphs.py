"""Units in recorded graphs: torch.jit.trace, torch.export, torch.compile; other batches and lengths than recorded."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

from mi2p_inject import MI2P, SourceFeatures, ViewSpec, inject
from mi2p_inject.core.numerics.recording import is_exporting
from mi2p_inject.sources.features import prepare
from mi2p_inject.units import Unit, product_order

MAP, TOKENS = ViewSpec.map(6, 4, 3), ViewSpec.tokens(12)
VIEWS = pytest.mark.parametrize(
    ("site", "source"), [(a, b) for a in (MAP, TOKENS) for b in (MAP, TOKENS)], ids=lambda spec: spec.kind
)
MASKED = pytest.mark.parametrize("masked", [False, True])


class Alone(nn.Module):
    """A unit whose inputs are tensors."""

    def __init__(self, site: ViewSpec, source: ViewSpec) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.unit: Unit = MI2P(num_heads=3, head_dim=4, zero_init=None).build(site, source)

    def forward(self, view: Tensor, data: Tensor, there: Tensor, mask: Tensor | None = None) -> Tensor:
        source = prepare(SourceFeatures(data, mask), self.unit.source, view.dtype, there)
        return self.unit(view, source)  # type: ignore[no-any-return]


def inputs(site: ViewSpec, source: ViewSpec, batch: int, length: int, masked: bool) -> tuple[Tensor, ...]:
    torch.manual_seed(batch)
    view, data = (
        torch.randn(batch, one.width, *one.grid) if one.grid else torch.randn(batch, length + more, one.width)
        for more, one in enumerate((site, source))
    )
    there = torch.arange(batch) != 1
    if source.grid or not masked:
        return view, data, there
    return view, data, there, torch.arange(length + 1) < torch.arange(1, batch + 1).unsqueeze(1)


class Asks(nn.Module):
    """Adds one where the graph is to leave this process."""

    def forward(self, x: Tensor) -> Tensor:
        return x + int(is_exporting())


def test_a_compiled_graph_does_not_leave_this_process_and_exported_ones_do() -> None:
    """torch 2.11's `torch.compiler.is_exporting` says otherwise, and compiled units held all scores in memory."""
    x = torch.zeros(2)
    assert Asks()(x).tolist() == torch.compile(Asks(), backend="eager", fullgraph=True)(x).tolist() == [0, 0]
    for strict in (False, True):
        told = not strict or hasattr(torch.compiler, "_is_exporting_flag")  # torch 2.6 takes a strict one for a compile
        assert torch.export.export(Asks(), (x,), strict=strict).module()(x).tolist() == [int(told)] * 2
    traced = torch.jit.trace(Asks(), x)  # type: ignore[no-untyped-call]
    assert traced(x).tolist() == [1, 1]


@VIEWS
@MASKED
@pytest.mark.parametrize("large", [False, True])
def test_a_trace_holds_for_other_batches_and_lengths(
    site: ViewSpec, source: ViewSpec, masked: bool, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if large:
        monkeypatch.setattr(product_order, "MANY", 0)
    model = Alone(site, source)
    traced = torch.jit.trace(model, inputs(site, source, 2, 5, masked), check_trace=False)  # type: ignore[no-untyped-call]
    for batch, length in ((2, 5), (5, 3), (1, 9)):
        other = inputs(site, source, batch, length, masked)
        torch.testing.assert_close(traced(*other), model(*other))


@VIEWS
def test_an_export_holds_for_other_batches_and_lengths(site: ViewSpec, source: ViewSpec) -> None:
    model = Alone(site, source)
    given = inputs(site, source, 5, 8, masked=True)
    auto = torch.export.Dim.AUTO
    shapes = [{0: auto}, {0: auto}, {0: auto}, {0: auto, 1: auto}][: len(given)]
    for number, one in enumerate((site, source)):
        if not one.grid:
            shapes[number][1] = auto
    exported = torch.export.export(model, given, dynamic_shapes=tuple(shapes)).module()
    for batch, length in ((5, 8), (7, 10), (2, 14)):
        other = inputs(site, source, batch, length, masked=True)
        torch.testing.assert_close(exported(*other), model(*other))


@pytest.mark.parametrize(("site", "source"), [(MAP, TOKENS), (TOKENS, MAP)], ids=lambda spec: spec.kind)
def test_one_compiled_graph_holds_for_other_batches_lengths_and_grids(site: ViewSpec, source: ViewSpec) -> None:
    torch._dynamo.reset()
    model = Alone(site, source)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for batch, length, more in ((5, 8, 4), (7, 13, 9), (11, 17, 5)):  # equal sizes would share a symbol
            view, *rest = inputs(site, source, batch, length, masked=True)
            view = nn.functional.pad(view, (0, more, 0, more + 3)) if site.grid else view
            torch.testing.assert_close(compiled(view, *rest), model(view, *rest))


def test_an_expanded_model_is_traced() -> None:
    class Traced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            backbone = timm.create_model("resnet10t", num_classes=3)
            self.me = inject(backbone, layers="paper", source_spec=ViewSpec.tokens(48), zero_init=None).eval()

        def forward(self, images: Tensor, words: Tensor) -> Tensor:
            return self.me(images, source=SourceFeatures(words))  # type: ignore[no-any-return]

    model = Traced()
    traced = torch.jit.trace(model, (torch.randn(2, 3, 64, 64), torch.randn(2, 9, 48)), check_trace=False)  # type: ignore[no-untyped-call]
    for batch, length in ((2, 9), (5, 4)):
        given = torch.randn(batch, 3, 64, 64), torch.randn(batch, length, 48)
        torch.testing.assert_close(traced(*given), model(*given))
