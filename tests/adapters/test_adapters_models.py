"""Every adapter, on real classes: its sites, its layout, where its features come out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from model_inputs import SAMPLES, real_tokens
from models import HEADED, LAYER_DROP, TINY, TinyModel
from torch import Tensor, nn

from mi2p_inject.adapters import Adapter, Match, adapters, find
from mi2p_inject.core.layout import Axes
from mi2p_inject.inspection.select import glob_paths

ALL = {**TINY, **{f"headed {name}": tiny for name, tiny in HEADED.items()}}
ADAPTERS = {adapter.name: adapter for adapter in adapters()}
VERIFIED = [name for name, tiny in ALL.items() if ADAPTERS[tiny.adapter].layout is not None]
"""Of adapters that say how their sites are stored; others are the sweep's to test."""
MASKED = [name for name in TINY if name.split("/")[0] in {one.name for one in adapters() if one.readout.mask}]
HUGGING = [name for name in TINY if ADAPTERS[TINY[name].adapter].library == "transformers"]


@cache
def built(name: str) -> nn.Module:
    return ALL[name].build()


def adapter_of(tiny: TinyModel) -> Adapter:
    return next(adapter for adapter in adapters() if adapter.name == tiny.adapter)


def sites_of(encoder: nn.Module, adapter: Adapter) -> list[str]:
    paths = [path for path, _ in encoder.named_modules()]
    return [path for pattern in Match(adapter, "").site_patterns(encoder) for path in glob_paths(pattern, paths)]


def watched(
    encoder: nn.Module,
    paths: list[str],
    run: Callable[[], Any],
    edit: Callable[[str, Any], Any] = lambda path, output: None,
) -> tuple[list[tuple[str, Any]], Any]:
    """Run with hooks on some modules: (path, output) in firing order, and what the run gave."""
    seen: list[tuple[str, Any]] = []

    def watch(path: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            seen.append((path, output))
            return edit(path, output)

        return hook

    handles = [encoder.get_submodule(path).register_forward_hook(watch(path)) for path in paths]
    try:
        with torch.no_grad():
            return seen, run()
    finally:
        for handle in handles:
            handle.remove()


def read(
    encoder: nn.Module,
    adapter: Adapter,
    args: Any,
    kwargs: Any,
    edit: Callable[[str, Any], Any] = lambda path, output: None,
) -> Tensor:
    """The features of a model, read as its adapter says, with its sites' outputs edited."""
    call = encoder if adapter.readout.call == "forward" else getattr(encoder, adapter.readout.call)
    path = adapter.readout.path_in(encoder)
    paths = [*sites_of(encoder, adapter), *([path] if path else [])]
    paths = list(dict.fromkeys(paths))
    seen, output = watched(encoder, paths, lambda: call(*args, **kwargs), edit)
    if path:
        output = edited if (edited := edit(path, seen[-1][1])) is not None else seen[-1][1]
    return adapter.readout.layout.view(output, path)


@pytest.mark.parametrize("name", ALL)
def test_row_is_found(name: str) -> None:
    match = find(built(name))
    assert match is not None
    assert (match.adapter.name, match.root) == (ALL[name].adapter, ALL[name].root)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", VERIFIED)
def test_sites_fire_once_in_order_with_their_layout(name: str, training: bool) -> None:
    tiny, model, adapter = ALL[name], built(name), adapter_of(ALL[name])
    encoder = model.get_submodule(tiny.root)
    sites = sites_of(encoder, adapter)
    assert len(sites) == len(set(sites)) >= 3
    assert all(
        glob_paths(pattern, [path for path, _ in encoder.named_modules()])
        for pattern in Match(adapter, "").site_patterns(encoder)
    )
    for batch in (2, 3):
        args, kwargs = tiny.inputs(batch, 0)
        model.train(training)
        try:
            seen, _ = watched(encoder, sites, lambda args=args, kwargs=kwargs: model(*args, **kwargs))
        finally:
            model.eval()
        assert [path for path, _ in seen] == sites
        for path, output in seen:
            view = adapter.layout.view(output, path)
            assert view.shape[0] == batch
            assert view.dim() == (4 if adapter.layout.axes in (Axes.NCHW, Axes.NHWC) else 3)
            prefix = adapter.prefix_tokens(encoder)
            if prefix is not None:
                side = math.isqrt(view.shape[1] - prefix)
                grid = replace(adapter.layout, prefix=prefix, grid=(side, side)).view(output, path)
                assert grid.shape == (batch, view.shape[2], side, side)


@pytest.mark.parametrize("name", [name for name in VERIFIED if name in TINY])
def test_what_is_added_at_a_site_reaches_the_features(name: str) -> None:
    encoder, adapter = built(name), adapter_of(TINY[name])
    args, kwargs = TINY[name].inputs(2, 0)
    plain = read(encoder, adapter, args, kwargs)
    for site in sites_of(encoder, adapter):

        def edit(path: str, output: Any, site: str = site) -> Any:
            view = adapter.layout.view(output, path) if path == site else None
            return None if view is None else adapter.layout.add(output, torch.randn(view.shape), path)

        assert not torch.allclose(read(encoder, adapter, args, kwargs, edit), plain, atol=1e-5), site


@pytest.mark.parametrize("name", [name for name in VERIFIED if name in TINY])
def test_features_come_out_where_the_row_says(name: str) -> None:
    encoder, adapter = built(name), adapter_of(TINY[name])
    for batch in (2, 3):
        args, kwargs = TINY[name].inputs(batch, 0)
        features = read(encoder, adapter, args, kwargs)
        assert features.shape[0] == batch
        assert features.isfinite().all()
        assert features.dim() == (4 if adapter.readout.layout.axes in (Axes.NCHW, Axes.NHWC) else 3)
        # Each sample's features are its own: a mixed-up batch axis would show here.
        alone = read(encoder, adapter, *_rows(args, kwargs, 1))
        torch.testing.assert_close(features[:1], alone, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", HUGGING)
@pytest.mark.parametrize(
    "option", [{"output_attentions": True}, {"output_hidden_states": True}, {"return_dict": False}]
)
def test_options_of_a_call_do_not_move_the_site(name: str, option: dict[str, bool]) -> None:
    encoder, adapter = built(name), adapter_of(TINY[name])
    if "output_attentions" in option:
        encoder = TINY[name].build()
        encoder.set_attn_implementation("eager") if encoder._supports_sdpa else None
    args, kwargs = TINY[name].inputs(2, 0)
    sites = sites_of(encoder, adapter)
    plain, _ = watched(encoder, sites, lambda: encoder(*args, **kwargs))
    other, _ = watched(encoder, sites, lambda: encoder(*args, **kwargs, **option))
    assert [path for path, _ in other] == sites
    for (path, before), (_, after) in zip(plain, other, strict=True):
        torch.testing.assert_close(adapter.layout.view(after, path), adapter.layout.view(before, path))


@pytest.mark.parametrize("name", MASKED)
def test_mask_marks_the_real_tokens(name: str) -> None:
    encoder, tiny = built(name), TINY[name]
    adapter, (args, kwargs) = adapter_of(tiny), tiny.inputs(3, 0)
    features = read(encoder, adapter, args, kwargs)
    assert adapter.readout.mask is not None
    mask = adapter.readout.mask(encoder, args, kwargs, features)
    assert mask is not None
    if adapter.modality == "audio":
        lengths = [SAMPLES - 1000 * i for i in range(3)]
        frames = [encoder(torch.zeros(1, length)).last_hidden_state.shape[1] for length in lengths]
        expected = torch.arange(features.shape[1]) < torch.tensor(frames).unsqueeze(1)
    else:
        expected = real_tokens(3, features.shape[1])
        expected = expected.flip(1) if adapter.name == "xlnet" else expected
        if name == "clip_text/coca":  # its class token stands last, and is always real
            expected = torch.cat([real_tokens(3, features.shape[1] - 1), torch.ones(3, 1, dtype=torch.bool)], 1)
    assert torch.equal(mask.bool(), expected)
    # The same call without names.
    names = {"audio": ["input_values", "attention_mask"], "text": ["input_ids", "attention_mask"]}[adapter.modality]
    if kwargs:
        positional = tuple(kwargs[name] for name in names)
        assert torch.equal(adapter.readout.mask(encoder, positional, {}, features), mask)
        unmasked = adapter.readout.mask(encoder, positional[:1], {}, features)
        assert unmasked is None or torch.equal(unmasked, expected)


def test_masks_of_other_forms() -> None:
    ids = torch.tensor([[5, 9, 9, 0], [5, 6, 7, 0]])
    sigmoid = TINY["clip_text"].build()
    sigmoid.pool_type, sigmoid.pad_id = "last", 0
    mask = adapter_of(TINY["clip_text"]).readout.mask
    assert mask is not None
    assert mask(sigmoid, (ids,), {}, torch.empty(0)).tolist() == [[True, True, True, False]] * 2
    sigmoid.pool_type, sigmoid.eos_id = "eos", 6
    assert mask(sigmoid, (), {"text": ids}, torch.empty(0)).tolist() == [[True] * 4, [True, True, False, False]]
    negative = adapter_of(TINY["xlnet"]).readout.mask
    assert negative is not None
    given = negative(built("xlnet"), (ids,), {"input_mask": torch.tensor([[1.0, 0, 0, 0]])}, torch.empty(0))
    assert given is not None
    assert given.tolist() == [[False, True, True, True]]


@pytest.mark.parametrize("name", [name for name in VERIFIED if name in TINY])
def test_example_inputs_of_the_row_run(name: str) -> None:
    encoder, adapter = built(name), adapter_of(TINY[name])
    args, kwargs = adapter.inputs(encoder)
    assert read(encoder, adapter, args, kwargs).shape[0] == 2


def test_layer_drop_skips_sites_in_train_mode_only() -> None:
    model, adapter = LAYER_DROP.build(), adapter_of(LAYER_DROP)
    args, kwargs = LAYER_DROP.inputs(2, 0)
    sites, fired = sites_of(model, adapter), set()
    for seed in range(8):
        torch.manual_seed(seed)
        fired.add(len(watched(model.train(), sites, lambda: model(*args, **kwargs))[0]))
    assert len(fired) > 1
    assert len(watched(model.eval(), sites, lambda: model(*args, **kwargs))[0]) == len(sites)


def _rows(args: Any, kwargs: Any, count: int) -> tuple[Any, Any]:
    return tuple(value[:count] for value in args), {name: value[:count] for name, value in kwargs.items()}
