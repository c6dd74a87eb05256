"""Layouts without an adapter: found by what changes, and asked for where that does not say."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mi2p_inject import SourceFeatures, ViewSpec, inject
from mi2p_inject.core.errors import LayoutError
from mi2p_inject.core.layout import Axes, Layout
from mi2p_inject.inspection.infer import infer_layouts
from mi2p_inject.inspection.probe import probe


def layout(model: nn.Module, path: str, *example: Tensor, **kwargs: Tensor) -> Layout:
    inputs = (example, kwargs)
    seen, _ = probe(model.eval(), [path], inputs)
    found = infer_layouts(model, [path], inputs, seen)[path]
    if isinstance(found, LayoutError):
        raise found
    return found


def test_a_nested_output_is_a_layout_error() -> None:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1)
    mask = torch.tensor([[False, False, True], [False, False, False]])
    model = nn.TransformerEncoder(encoder.layers[0], 2, enable_nested_tensor=True)
    with pytest.raises(LayoutError, match="enable_nested_tensor=False"):
        layout(model, "layers.0", torch.randn(2, 3, 8), src_key_padding_mask=mask)


def test_an_encoder_whose_fused_kernel_takes_any_width_has_its_own() -> None:
    """Without a hook on its layers torch runs them fused, and says nothing of fake inputs that are too wide."""
    for norm_first in (False, True):
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first)
        words = torch.randn(2, 9, 8)
        assert layout(nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), "", words) == Layout(Axes.NLC)
        assert layout(nn.Sequential(layer, nn.Dropout(0.0), nn.Linear(8, 2)), "1", words) == Layout(Axes.NLC)
    assert torch.backends.mha.get_fastpath_enabled()


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


def test_channels_first_sequences_of_one_size_are_asked_about() -> None:
    fixed = nn.Sequential(nn.Conv1d(4, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))
    for path in ("0", "1", "2"):  # up to there they take any length
        assert layout(fixed, path, torch.randn(2, 4, 6)) == Layout(Axes.NCL)
    one_size = nn.Sequential(nn.Unflatten(2, (3, 2)), nn.Flatten(2), *fixed)
    for path in ("2", "3", "4"):
        with pytest.raises(LayoutError, match=r"layout=.*'NCL'"):
            layout(one_size, path, torch.randn(2, 4, 6))
    tokens = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8))
    assert layout(tokens, "0", torch.randn(2, 5, 8)).axes is Axes.NLC
    words = nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 8))
    assert layout(words, "1", torch.zeros(2, 5, dtype=torch.long)).axes is Axes.NLC


def test_a_fixed_size_model_prints_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 64, 2))
    layout(model, "0", torch.randn(2, 3, 8, 8))
    assert "Traceback" not in capfd.readouterr().err


def test_a_head_of_fixed_size_does_not_hide_the_axes_before_it() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 2))
    assert layout(model, "1", torch.randn(2, 3, 8, 8)).axes is Axes.NCHW  # 8 channels of 8x8: only growth tells


class InDict(nn.Module):
    """A stage that gives its map in a dict of some kind."""

    def __init__(self, kind: Any, key: Any) -> None:
        super().__init__()
        self.kind, self.key, self.stage = kind, key, nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Any:
        return self.kind({self.key: self.stage(x)})


class ReadsDict(nn.Module):
    """Reads it, and of a defaultdict what is not there."""

    def __init__(self, kind: Any, key: Any) -> None:
        super().__init__()
        self.body = InDict(kind, key)

    def forward(self, x: Tensor) -> Tensor:
        found = self.body(x)
        others: list[Any] = found["others"] if isinstance(found, defaultdict) else []
        out: Tensor = found[self.body.key] + len(others)
        return out


def test_dicts_of_other_kinds() -> None:
    x, source = torch.randn(2, 3, 6, 6), ViewSpec.tokens(4)
    for kind in (dict, OrderedDict, partial(defaultdict, list)):
        me = inject(ReadsDict(kind, "map"), layers="body", source_spec=source, example_inputs=x)
        assert torch.equal(me(x, source=SourceFeatures(torch.randn(2, 5, 4))), me(x))
        with pytest.raises(LayoutError, match="cannot tell which part"):
            inject(ReadsDict(kind, 0), layers="body", source_spec=source, example_inputs=x)
