"""Bad input: each gets our error, with the path, what was expected, what came, and the fix."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from helpers import PICTURES, WORDS, complains, expanded, net, token_features
from models import TINY
from torch import Tensor, nn
from torch.nn import functional as F

from mi2p_inject import ViewSpec, inject
from mi2p_inject.core.errors import (
    AdapterError,
    InjectionError,
    InjectionWarning,
    LayoutError,
    ProbeError,
    SelectionError,
    SiteError,
)


class TestLayers:
    def test_unknown_name_gets_the_closest_with_shapes(self) -> None:
        model = TINY["densenet"].build()
        with complains(SelectionError, "features.denseblok1", r"features\.denseblock1 -> Tensor\(2, \d+, \d+, \d+\)"):
            inject(model, layers="features.denseblok1", source_spec=WORDS)

    @pytest.mark.parametrize("layers", ["nothing.*", re.compile("nothing"), [], lambda path, module: False])
    def test_patterns_that_match_nothing(self, layers: Any) -> None:
        with complains(SelectionError):
            inject(TINY["densenet"].build(), layers=layers, source_spec=WORDS)

    @pytest.mark.parametrize("layers", [99, -99, 1.5, [True]])
    def test_bad_index(self, layers: Any) -> None:
        with complains(SelectionError):
            inject(TINY["densenet"].build(), layers=layers, source_spec=WORDS)

    def test_index_without_a_row(self) -> None:
        with complains(SelectionError, "adapter"):
            inject(net(), layers=0, source_spec=WORDS, example_inputs=PICTURES)

    def test_no_row_no_layers(self) -> None:
        with complains(SelectionError, r"layers=\[\.\.\.\]"):
            inject(net(), source_spec=WORDS, example_inputs=PICTURES)

    def test_no_row_no_example(self) -> None:
        with complains(ProbeError, "example_inputs"):
            inject(net(), layers="0", source_spec=WORDS)

    @pytest.mark.parametrize(
        ("layers", "count"),
        [("features.denseblock1", 1), (["features.denseblock1", "features.denseblock4"], 2),
         ("features.denseblock*", 4),
         (re.compile(r"features\.denseblock[12]"), 2), (0, 1), ([0, -1], 2), ([0, "features.denseblock1"], 1),
         (lambda path, module: path.endswith("block2"), 1), ("**.denselayer1", 4)],
    )  # fmt: skip
    def test_good_ones(self, layers: Any, count: int) -> None:
        assert len(inject(TINY["densenet"].build(), layers=layers, source_spec=WORDS).sites) == count


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shared, self.silent, self.ignored = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.direct = nn.Conv2d(3, 3, 1)
        self.used = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        self.ignored(x)
        x = F.conv2d(self.direct.forward(x), self.silent.weight)
        return self.used(self.shared(self.shared(x)))


class TestSites:
    @pytest.mark.parametrize(
        ("layer", "words"),
        [("silent", "never fires"), ("direct", "never fires"), ("shared", "fires 2 times"), ("ignored", "ignores")],
    )
    def test_refused(self, layer: str, words: str) -> None:
        with complains(SiteError, f"site '{layer}'", words):
            inject(Twice(), layers=layer, source_spec=WORDS, example_inputs=PICTURES)

    def test_a_refusal_leaves_the_model_alone(self) -> None:
        model = Twice().train()
        with complains(SiteError):
            inject(model, layers=["used", "ignored"], source_spec=WORDS, example_inputs=PICTURES)
        assert all(not module._forward_hooks and module.training for module in model.modules())

    def test_shared_layer_of_albert(self) -> None:
        from transformers import AlbertConfig, AlbertModel

        config = AlbertConfig(
            vocab_size=60,
            embedding_size=8,
            hidden_size=12,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=12,
        )
        with complains(SiteError, "fires 3 times"):
            inject(
                AlbertModel(config),
                layers="encoder.albert_layer_groups.0.albert_layers.0",
                source_spec=ViewSpec.map(4, 2, 2),
                example_inputs={"input_ids": torch.ones(2, 5, dtype=torch.long)},
            )

    def test_the_last_block_before_a_class_token_head(self) -> None:
        model = TINY["vit"].build()
        last = [name for name, _ in model.named_modules() if re.fullmatch(r"blocks\.\d+", name)][-1]
        with complains(SiteError, last, "patch tokens"):
            inject(model, layers=last, source_spec=WORDS)
        me = inject(model, source_spec=WORDS)
        assert last not in [site.path for site in me.sites]
        assert last in me.summary()
        me.eject()
        me = inject(model, layers=last, source_spec=WORDS, view="tokens", zero_init=None)  # the class token is a token
        assert not torch.equal(
            me(*TINY["vit"].inputs(2, 0)[0], source=token_features(2)), model(*TINY["vit"].inputs(2, 0)[0])
        )

    def test_a_hook_disabled_after_injection_is_found_out(self) -> None:
        me = expanded()
        me.backbone[0]._forward_hooks.clear()
        with complains(SiteError, "did not fire"):
            me(PICTURES, source=token_features(2))

    def test_a_pooled_vector_is_no_site(self) -> None:
        with complains(LayoutError, "neither a map nor tokens"):
            inject(net(), layers="4", source_spec=WORDS, example_inputs=PICTURES)

    def test_folded_batch(self) -> None:
        class Folds(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = nn.Conv2d(1, 4, 3, padding=1)

            def forward(self, x: Tensor) -> Tensor:
                return self.inner(x.reshape(-1, 1, 8, 8)).reshape(len(x), -1).sum(1)

        with complains(LayoutError, "folded"):
            inject(Folds(), layers="inner", source_spec=WORDS, example_inputs=PICTURES)


class TestStates:
    def test_injecting_an_expanded_model(self) -> None:
        with complains(InjectionError, "expanded model already"):
            inject(expanded(), layers="0", source_spec=WORDS, example_inputs=PICTURES)

    def test_injecting_twice_warns_and_neither_hears_the_other(self) -> None:
        model = net()
        first = inject(model, layers="0", source_spec=WORDS, example_inputs=PICTURES, zero_init=None)
        expected = first(PICTURES, source=token_features(2))
        with pytest.warns(InjectionWarning, match=r"site '0'[\s\S]*expected[\s\S]*given[\s\S]*fix"):
            second = inject(model, layers="0", source_spec=WORDS, example_inputs=PICTURES, zero_init=None)
        assert torch.equal(first(PICTURES, source=token_features(2)), expected)
        assert not torch.equal(second(PICTURES, source=token_features(2)), expected)

    def test_dropping_the_first_takes_its_hooks_away(self) -> None:
        model = net()
        me = inject(model, layers="0", source_spec=WORDS, example_inputs=PICTURES)
        del me
        assert not model[0]._forward_hooks

    def test_ejecting_twice(self) -> None:
        me = expanded()
        me.eject()
        with complains(InjectionError, "ejected"):
            me.eject()
        with complains(InjectionError, "ejected"):
            me(PICTURES)

    @pytest.mark.parametrize("how", ["wrapped", "in place", "inner"])
    def test_a_compiled_model(self, how: str) -> None:
        model = net()
        if how == "wrapped":
            model, layer = torch.compile(model, backend="eager"), "_orig_mod.0"
        elif how == "in place":
            model.compile(backend="eager")
            layer = "0"
        else:
            model, layer = nn.Sequential(torch.compile(model, backend="eager")), "0._orig_mod.0"
        with complains(InjectionError, "compiled"):
            inject(model, layers=layer, source_spec=WORDS, example_inputs=PICTURES)

    def test_a_weight_in_both_roles(self) -> None:
        backbone, encoder = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), nn.Sequential(nn.Linear(4, 4))
        encoder[0].weight = backbone[1].weight
        with complains(InjectionError, "share modules or weights"):
            given = {"example_inputs": torch.zeros(2, 3, 4), "source_example_inputs": torch.zeros(2, 3, 4)}
            inject(backbone, layers="0", source_encoder=encoder, **given)

    def test_one_model_in_both_roles(self) -> None:
        vision, text = TINY["densenet"].build(), TINY["bert"].build()
        with complains(InjectionError, "share modules"):
            inject(vision, source_encoder=vision)
        me = inject(vision, source_encoder=text)
        with complains(InjectionError, "frozen source encoder"):
            inject(text, source_encoder=TINY["resnet"].build())
        with complains(InjectionError, "itself the backbone"):
            inject(TINY["bert"].build(), source_encoder=vision)
        me.eject()
        inject(text, source_encoder=vision)

    def test_a_forward_that_takes_source(self) -> None:
        class Takes(nn.Module):
            def forward(self, source: Tensor) -> Tensor:
                return source

        with complains(InjectionError, "source"):
            inject(Takes(), layers="x", source_spec=WORDS, example_inputs=PICTURES)

    def test_no_module(self) -> None:
        with complains(InjectionError, "no module"):
            inject("densenet121", source_spec=WORDS)  # type: ignore[arg-type]

    def test_a_dual_model(self) -> None:
        import open_clip
        from transformers import CLIPConfig, CLIPModel

        vision = {"image_size": 32, "layers": 1, "width": 16, "patch_size": 16, "head_width": 8}
        text = {"context_length": 8, "vocab_size": 60, "width": 16, "heads": 2, "layers": 1}
        with complains(AdapterError, "visual"):
            inject(open_clip.CLIP(16, vision, text), source_spec=WORDS)
        small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
        with complains(AdapterError):
            inject(CLIPModel(CLIPConfig(text_config=small, vision_config=small)), source_spec=WORDS)
