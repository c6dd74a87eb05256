"""The dry run leaves no trace, and says what it saw."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from mi2p_inject import inject
from mi2p_inject.core.errors import InjectionError, ProbeError
from mi2p_inject.core.inputs import as_inputs
from mi2p_inject.core.layout import Axes, Layout
from mi2p_inject.core.views import ViewSpec
from mi2p_inject.inspection.patch_effect import ignored_patches
from mi2p_inject.inspection.preserve import left_as_is
from mi2p_inject.inspection.probe import probe

ONES: dict[int, Tensor] = {}
GROWING: dict[str, Tensor] = {"mask": torch.ones(1)}
ROWS: list[Any] = ["mine"]


@functools.lru_cache
def filled(n: int) -> Tensor:
    return torch.ones(n)


@functools.lru_cache
def unrelated(n: int) -> int:
    return n + 1


class Caching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[-1]
        if n not in ONES:
            ONES[n] = torch.ones(n)
        if GROWING["mask"].numel() < n:
            GROWING["mask"] = torch.ones(n)
        ROWS.append(torch.ones(n))
        return self.inner(x) * ONES[n] * filled(n) * GROWING["mask"]


def test_no_fake_tensor_stays_in_caches_of_the_models_code() -> None:
    unrelated(1)
    filled.cache_clear()
    mask = GROWING["mask"]
    probe(Caching(), ["inner"], as_inputs(torch.randn(2, 3, 4)))
    assert not ONES
    assert ROWS == ["mine"]
    assert GROWING["mask"] is mask
    assert not isinstance(filled(4), FakeTensor)
    assert unrelated.cache_info().currsize == 1


def test_the_summary_leaves_no_fake_tensor_either() -> None:
    x = torch.randn(2, 3, 4)
    me = inject(Caching(), layers="inner", source_spec=ViewSpec.tokens(4), example_inputs=x)
    ONES.clear()
    me.summary()
    assert not any(isinstance(value, FakeTensor) for value in ONES.values())


class Blind(nn.Module):
    """Its forward runs without gradients, or its result is a plain object."""

    def __init__(self, grad: bool, wrap: Any, ignores: bool = False) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 4)
        self.grad, self.wrap, self.ignores = grad, wrap, ignores

    def forward(self, x: Tensor) -> Any:
        with torch.set_grad_enabled(self.grad and torch.is_grad_enabled()):
            y = self.inner(x)
        return self.wrap(self.head(x if self.ignores else y))


@dataclass
class Result:
    logits: Tensor


class Opaque:
    __slots__ = ("value",)

    def __init__(self, value: Tensor) -> None:
        self.value = value


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Blind(False, lambda y: y), None),
        (Blind(True, Opaque), None),
        (Blind(True, lambda y: y.detach()), None),
        (Blind(True, Result), 1),
        (Blind(True, Result, ignores=True), 0),
        (Blind(True, Result, ignores=True).requires_grad_(False), 0),
    ],
)
def test_reaching_is_none_where_the_graph_does_not_say(model: nn.Module, expected: int | None) -> None:
    seen, _ = probe(model, ["inner"], as_inputs(torch.randn(2, 3, 4)), effect=True)
    reached = seen["inner"].reaches_output
    assert (reached if reached is None else len(reached)) == expected


class ClassToken(nn.Module):
    def __init__(self, fail: bool = False) -> None:
        super().__init__()
        self.inner, self.head, self.fail = nn.Linear(4, 4), nn.Linear(4, 2), fail
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        if self.fail:
            raise RuntimeError("no kernel")
        return self.head(self.inner(x)[:, 0]) * scale


def test_a_head_of_zeros_does_not_hide_ignored_patches() -> None:
    inputs = ((torch.randn(2, 5, 4), torch.tensor(2.0)), {})
    layouts = {"inner": Layout(Axes.NLC, prefix=1, grid=(2, 2))}
    model = ClassToken()
    assert ignored_patches(model, layouts, inputs) == ["inner"]
    assert not model.head.weight.any()
    assert ignored_patches(ClassToken(fail=True), layouts, inputs) == []


class Stateful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.utils.spectral_norm(nn.Linear(4, 4))
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(2))
        self.log: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.steps += 1
        self.seen = torch.ones(2)
        self.last = x
        self.log.append(x)
        return self.inner(x)


def test_a_real_run_leaves_buffers_attributes_and_hooks() -> None:
    model, called = Stateful(), []
    steps, seen = model.steps, model.seen
    model.register_forward_pre_hook(lambda *_: called.append(1))
    names = set(vars(model))
    with left_as_is(model):
        model.inner.register_forward_hook(lambda *_: None)
        model(torch.randn(2, 4))
        assert model.inner._forward_pre_hooks
    assert not called
    assert model.training
    assert model.steps is steps
    assert model.seen is seen
    assert not steps.any()
    assert not seen.any()
    assert set(vars(model)) == names
    assert not model.log
    assert not model.inner._forward_hooks
    model(torch.randn(2, 4))
    assert called


def test_lazy_parameters_are_refused_up_front() -> None:
    model = nn.Sequential(nn.LazyLinear(4))
    with pytest.raises(InjectionError, match="run it once first"):
        probe(model, ["0"], as_inputs(torch.randn(2, 3)))
    assert torch.nn.parameter.is_lazy(model[0].weight)


class Lazy(dict[str, Any]):
    """Imports the world when asked for its keys, as the automatic classes of transformers do."""

    def __iter__(self) -> Any:
        raise AssertionError("asked")

    keys = values = items = __iter__


LAZY = Lazy(one=1)


def test_lazy_mappings_are_not_asked() -> None:
    probe(Swallows(), ["first"], as_inputs(torch.randn(2, 3, 4)), stop=True)
    assert dict.__len__(LAZY) == 1


MINE = torch.empty(2, device="meta")


def test_meta_tensors_that_were_there_stay() -> None:
    mine = MINE
    probe(Swallows().to("meta"), ["first"], as_inputs(torch.randn(2, 3, 4)), stop=True)
    assert mine is MINE


class Looks(nn.Module):
    """Looks at a value, which no fake tensor has."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.runs = nn.Linear(4, 4), []

    def forward(self, x: Tensor) -> Tensor:
        self.runs.append(1)
        return self.inner(x) if float(self.inner.weight.sum()) < 1e9 else x


def test_what_looks_at_values_runs_for_real_or_is_refused_without_weights() -> None:
    x = as_inputs(torch.randn(2, 3, 4))
    model = Looks().train().requires_grad_(False)
    seen, _ = probe(model, ["inner"], x, effect=True)
    assert type(seen["inner"].output) is Tensor
    assert seen["inner"].reaches_output
    assert model.training
    assert not model.runs
    assert not any(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(ProbeError, match=r"item|meta|data"):
        probe(Looks().to("meta"), ["inner"], x)


class Swallows(nn.Module):
    """Goes on after any error, and would run far beyond what is wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        try:
            x = self.second(self.first(x))
        except Exception:
            x = x + 1
        return self.third(x.reshape(7, 7))  # fails for all but one size


def test_a_stopped_run_ends_at_the_last_wanted_module() -> None:
    model, x = Swallows(), as_inputs(torch.randn(2, 3, 4))
    seen, out = probe(model, ["first", "second"], x, stop=True)
    assert out is None
    assert seen["first"].times == seen["second"].times == 1
    for paths, stop in ((["first"], False), (["first", "third"], True)):
        with pytest.raises(ProbeError):
            probe(model, paths, x, stop=stop)
