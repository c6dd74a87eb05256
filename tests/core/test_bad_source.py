"""Bad sources and sizes, and outputs that come back in their own type."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import pytest
import torch
from helpers import PICTURES, WORDS, complains, expanded, map_features, net, token_features
from models import BERT, TINY, hugging
from PIL import Image
from torch import Tensor, nn

from mi2p_inject import Layout, SourceFeatures, ViewSpec, inject
from mi2p_inject.core.errors import (
    LayoutError,
    ProbeError,
    SourceError,
    UnitError,
)


class TestSource:
    @pytest.mark.parametrize(
        ("batch", "fix"),
        [
            ("a text", "tokenize it first"),
            (["a", "b"], "tokenize it first"),
            ({"input_ids": ["a", "b"]}, "tokenize it first"),
            ([[1, 2], [3, 4]], "make tensors of it first"),
            ({"input_ids": [[1, 2], [3, 4]]}, 'return_tensors="pt"'),
            (Image.new("RGB", (4, 4)), "make tensors of pictures first"),
            (torch.zeros(2, 3, 4), "as you would call the encoder"),
        ],
    )
    def test_what_no_encoder_takes(self, batch: Any, fix: str) -> None:
        me = inject(net(), layers="0", source_encoder=hugging("BertModel", BERT)(), example_inputs=PICTURES)
        with complains(SourceError, fix):
            me(PICTURES, source=batch)

    def test_other_batch(self) -> None:
        with complains(SourceError, "site '0'", "2 rows", "3"):
            expanded()(PICTURES, source=token_features(3))

    def test_wrong_kind(self) -> None:
        with complains(SourceError, "kind", r"tokens \(B, L, 12\)", "map"):
            expanded()(PICTURES, source=map_features(2))

    def test_wrong_width(self) -> None:
        with complains(SourceError, "width", "12", "13"):
            expanded()(PICTURES, source=token_features(2, width=13))

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_nan(self, bad: float) -> None:
        data = torch.zeros(2, 5, 12)
        data[1, 2, 3] = bad
        with complains(SourceError, "NaN", r"rows \[1\]"):
            expanded()(PICTURES, source=SourceFeatures(data))
        padding = torch.tensor([[True] * 5, [True, True, False, False, False]])
        for features, there in (
            (SourceFeatures(data, padding), None),
            (SourceFeatures(data), torch.tensor([True, False])),
        ):
            assert torch.isfinite(expanded()(PICTURES, source=features, source_mask=there)).all()  # nobody looks there

    @pytest.mark.parametrize("data", [torch.zeros(2, 5), torch.zeros(2, 5, 12, dtype=torch.long), "words", None])
    def test_no_features(self, data: Any) -> None:
        with complains(SourceError, "neither tokens nor a map"):
            SourceFeatures(data)

    @pytest.mark.parametrize("numbers", [(0.0, -10000.0), (0, -1), (1, 2), (0.0, float("-inf")), (1.0, 0.5)])
    def test_mask_of_other_numbers(self, numbers: tuple[float, float]) -> None:
        """One that is added to scores says the opposite."""
        with complains(SourceError, "other numbers than 0 and 1", "mask == 0"):
            SourceFeatures(torch.zeros(2, 2, 12), torch.tensor([numbers, numbers[::-1]]))

    @pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.long, torch.float16, torch.float32])
    def test_mask_of_any_type(self, dtype: torch.dtype) -> None:
        real = torch.tensor([[True, False], [True, True]])
        assert torch.equal(SourceFeatures(torch.zeros(2, 2, 12), real.to(dtype)).mask, real)

    @pytest.mark.parametrize("sizes", [("a",), (16.0,), (0,), (-1,), (16, 2.0, 2), (16, 2, 0), (None, 2, 2)])
    def test_view_of_no_size(self, sizes: tuple[Any, ...]) -> None:
        with complains(UnitError, "positive integers"):
            ViewSpec.tokens(*sizes) if len(sizes) == 1 else ViewSpec.map(*sizes)

    def test_mask_of_another_shape(self) -> None:
        with complains(SourceError, "mask"):
            SourceFeatures(torch.zeros(2, 5, 12), torch.ones(2, 4))

    @pytest.mark.parametrize(
        "mask", [torch.ones(3, dtype=torch.bool), torch.ones(2), torch.ones(2, 1, dtype=torch.bool)]
    )
    def test_bad_source_mask(self, mask: Tensor) -> None:
        with complains(SourceError, "source_mask"):
            expanded()(PICTURES, source=token_features(2), source_mask=mask)

    def test_source_mask_without_source(self) -> None:
        with complains(SourceError, "without a source"):
            expanded()(PICTURES, source_mask=torch.ones(2, dtype=torch.bool))

    def test_no_encoder(self) -> None:
        with complains(SourceError, "no source encoder"):
            expanded()(PICTURES, source={"input_ids": torch.ones(2, 3, dtype=torch.long)})

    def test_nothing_says_what_the_source_is(self) -> None:
        with complains(SourceError, "source_encoder="):
            inject(TINY["densenet"].build())

    def test_spec_against_encoder(self) -> None:
        with complains(SourceError, "contradicts"):
            inject(TINY["densenet"].build(), source_encoder=TINY["bert"].build(), source_spec=ViewSpec.tokens(5))

    def test_an_encoder_that_gives_vectors(self) -> None:
        with complains(LayoutError):
            inject(TINY["densenet"].build(), source_encoder=net(), source_example_inputs=PICTURES)

    def test_an_encoder_nobody_knows(self) -> None:
        with complains(ProbeError, "source_example_inputs"):
            inject(TINY["densenet"].build(), source_encoder=net())

    def test_other_device(self) -> None:
        me = expanded()
        with complains(SourceError, "another device", "meta|cpu"):
            me(PICTURES, source=SourceFeatures(torch.zeros(2, 5, 12, device="meta")))
        with complains(SourceError, "another device"):
            expanded().to("meta")(PICTURES.to("meta"), source=token_features(2))

    def test_other_float_types_are_cast_and_outputs_keep_theirs(self) -> None:
        me = expanded()
        doubles = SourceFeatures(torch.randn(2, 5, 12, dtype=torch.float64))
        assert me(PICTURES, source=doubles).dtype == torch.float32
        me.backbone.bfloat16()  # frozen half-precision backbone, units in float32
        assert me(PICTURES.bfloat16(), source=token_features(2)).dtype == torch.bfloat16

    def test_all_padding_row(self) -> None:
        me = expanded()
        features = SourceFeatures(torch.randn(2, 5, 12), torch.tensor([[True] * 5, [False] * 5]))
        out, alone = me(PICTURES, source=features), me(PICTURES)
        assert torch.equal(out[1], alone[1])
        assert not torch.equal(out[0], alone[0])
        out.sum().backward()
        assert all(bool(torch.isfinite(p.grad).all()) for p in me.parameters() if p.grad is not None)


class TestSizes:
    def test_other_image_size_works_and_strict_raises(self) -> None:
        larger = torch.randn(2, 3, 12, 10)
        me = expanded()
        assert not torch.equal(me(larger, source=token_features(2)), me(larger))
        with complains(LayoutError, "site '0'", "strict"):
            expanded(strict=True)(larger, source=token_features(2))

    def test_other_source_grid_works_and_strict_raises(self) -> None:
        for strict in (False, True):
            me = inject(net(), layers="0", source_spec=ViewSpec.map(10, 6, 6), example_inputs=PICTURES, strict=strict)
            if strict:
                with complains(SourceError, "strict"):
                    me(PICTURES, source=map_features(2))
            else:
                assert me(PICTURES, source=map_features(2)).shape == (2, 4)

    def test_tokens_that_form_no_grid(self) -> None:
        with complains(LayoutError, "grid"):
            Layout("NLC", prefix=1, grid=(4, 4)).view(torch.zeros(2, 1 + 7, 3), "blocks.0")


Pair = namedtuple("Pair", "hidden other")


class TestOutputs:
    """Outputs come back in the very type they had."""

    @pytest.mark.parametrize("kind", ["tuple", "list", "dict", "named", "model output"])
    def test_containers(self, kind: str) -> None:
        from transformers.modeling_outputs import BaseModelOutput

        class Inner(nn.Module):
            def forward(self, x: Tensor) -> Any:
                return {
                    "tuple": (x, "kept"),
                    "list": [x, "kept"],
                    "dict": {"hidden": x, "other": "kept"},
                    "named": Pair(x, "kept"),
                    "model output": BaseModelOutput(last_hidden_state=x),
                }[kind]

        class Outer(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv, self.inner, self.seen = nn.Conv2d(3, 4, 1), Inner(), None

            def forward(self, x: Tensor) -> Tensor:
                self.seen = self.inner(self.conv(x))
                return next(v for v in (self.seen.values() if isinstance(self.seen, dict) else self.seen))

        model = Outer()
        plain = type(model.inner(PICTURES))
        me = inject(model, layers="inner", source_spec=WORDS, example_inputs=PICTURES, zero_init=None)
        out = me(PICTURES, source=token_features(2))
        assert type(model.seen) is plain
        assert not torch.equal(out, me(PICTURES))
