"""The dry run leaves no trace, and layouts it cannot tell are asked for."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from typing import Any

import pytest
import timm
import torch
import transformers
from models import BERT, HF_SWIN, PATCHES
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from mi2p_inject import inject
from mi2p_inject.core.errors import InjectionError, LayoutError, ProbeError
from mi2p_inject.core.inputs import as_inputs, tensors_in
from mi2p_inject.core.layout import Axes, Layout
from mi2p_inject.core.views import ViewSpec
from mi2p_inject.inspection.infer import infer_layouts
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


def layout(model: nn.Module, path: str, *example: Tensor, **kwargs: Tensor) -> Layout:
    inputs = (example, kwargs)
    seen, _ = probe(model.eval(), [path], inputs)
    found = infer_layouts(model, [path], inputs, seen)[path]
    if isinstance(found, LayoutError):
        raise found
    return found


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


def test_a_nested_output_is_a_layout_error() -> None:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1)
    mask = torch.tensor([[False, False, True], [False, False, False]])
    model = nn.TransformerEncoder(encoder.layers[0], 2, enable_nested_tensor=True)
    with pytest.raises(LayoutError, match="enable_nested_tensor=False"):
        layout(model, "layers.0", torch.randn(2, 3, 8), src_key_padding_mask=mask)


class Turned(nn.Module):
    """Takes (B, L, D) and turns it for its encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 1)
        self.last = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(x.transpose(0, 1)).transpose(0, 1))


def test_length_first_sequence_modules_are_asked_about() -> None:
    for model, path in (
        (nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 1), "layers.0"),
        (nn.LSTM(8, 8), ""),
        (nn.Sequential(nn.Linear(8, 8), nn.TransformerEncoderLayer(8, 2, 16)), "0"),
    ):
        with pytest.raises(LayoutError, match="batch_first"):
            layout(model, path, torch.randn(5, 2, 8))
    assert layout(nn.LSTM(8, 8, batch_first=True), "", torch.randn(2, 5, 8)).axes is Axes.NLC
    assert layout(Turned(), "inner", torch.randn(2, 5, 8)).axes is Axes.LNC
    assert layout(Turned(), "last", torch.randn(2, 5, 8)).axes is Axes.NLC


def test_channels_first_sequences_are_asked_about() -> None:
    free = nn.Sequential(nn.Conv1d(4, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool1d(1))
    fixed = nn.Sequential(nn.Conv1d(4, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))
    for model, path in ((free, "0"), (free, "1"), (fixed, "0"), (fixed, "1"), (fixed, "2")):
        with pytest.raises(LayoutError, match="layout="):
            layout(model, path, torch.randn(2, 4, 6))
    tokens = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8))
    assert layout(tokens, "0", torch.randn(2, 5, 8)).axes is Axes.NLC
    words = nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 8))
    assert layout(words, "1", torch.zeros(2, 5, dtype=torch.long)).axes is Axes.NLC


class Blind(nn.Module):
    """Its forward runs without gradients, or its result is a plain object."""

    def __init__(self, grad: bool, wrap: Any, deaf: bool = False) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 4)
        self.grad, self.wrap, self.deaf = grad, wrap, deaf

    def forward(self, x: Tensor) -> Any:
        with torch.set_grad_enabled(self.grad and torch.is_grad_enabled()):
            y = self.inner(x)
        return self.wrap(self.head(x if self.deaf else y))


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
        (Blind(True, Result, deaf=True), 0),
        (Blind(True, Result, deaf=True).requires_grad_(False), 0),
    ],
)
def test_heard_is_none_where_the_graph_does_not_say(model: nn.Module, expected: int | None) -> None:
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


def test_a_head_of_zeros_does_not_hide_unheard_patches() -> None:
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


def test_a_fixed_size_model_prints_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 64, 2))
    layout(model, "0", torch.randn(2, 3, 8, 8))
    assert "Traceback" not in capfd.readouterr().err


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


HUGGING = {
    "BeitModel": {**PATCHES, "use_relative_position_bias": True},
    "Data2VecVisionModel": {**PATCHES, "use_shared_relative_position_bias": True},
    "DINOv3ViTModel": {**PATCHES, "hidden_size": 32},
    "Dinov2Model": PATCHES,
    "Swinv2Model": HF_SWIN,
    "BigBirdModel": BERT,
    "LongformerModel": {**BERT, "attention_window": 4},
    "GPT2Model": {**BERT, "n_embd": 24, "n_layer": 2, "n_head": 4},
}
TIMM = {
    "levit_128s": 224,
    "convit_tiny": 64,
    "efficientformer_l1": 224,
    "tiny_vit_5m_224": 224,
    "swinv2_tiny_window8_256": 64,
    "beit_base_patch16_224": 32,
}


def hazard(name: str) -> tuple[nn.Module, Any]:
    """A model that keeps tensors in buffers, attributes or caches while it runs, and its input."""
    torch.manual_seed(0)
    if name in TIMM:
        size = TIMM[name]
        options: dict[str, Any] = {} if size == 224 else {"img_size": size}
        if name.startswith("beit"):
            options |= {"depth": 2, "embed_dim": 24, "num_heads": 2}
        return timm.create_model(name, **options).eval(), torch.randn(1, 3, size, size)
    cls = getattr(transformers, name)
    config = cls.config_class(**HUGGING[name])
    ids = torch.randint(3, 50, (2, 8))
    example = torch.randn(1, 3, config.image_size, config.image_size) if "image_size" in HUGGING[name] else ids
    return cls(config).eval(), example


@pytest.mark.parametrize("name", [*HUGGING, *TIMM])
def test_a_probed_model_runs_for_real_as_if_nothing_had_been(name: str) -> None:
    model, x = hazard(name)
    twin = copy.deepcopy(model)
    names = [sorted(vars(module)) for module in model.modules()]
    paths = [path for path, _ in model.named_modules() if path]
    for options in ({"effect": True}, {"stop": True}):
        probe(model, paths[-2:], as_inputs(x), **options)
    assert [sorted(vars(module)) for module in model.modules()] == names
    with torch.no_grad():
        out, expected = tensors_in(model(x)), tensors_in(twin(x))
    assert out
    for one, other in zip(out, expected, strict=True):
        assert type(one) is type(other)
        assert torch.equal(one, other)
    for module in model.modules():
        assert not any(isinstance(value, FakeTensor) for value in tensors_in(list(vars(module).values()), depth=0))


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


def test_a_head_of_fixed_size_does_not_hide_the_axes_before_it() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 2))
    assert layout(model, "1", torch.randn(2, 3, 8, 8)).axes is Axes.NCHW  # 8 channels of 8x8: only growth tells
