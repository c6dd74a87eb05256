"""Several expanded models over one backbone or encoder, copies, other precisions and image sizes."""

from __future__ import annotations

import copy
import gc
import pickle
import warnings
from typing import Any

import pytest
import torch
from helpers import map_features, snapshot, token_features
from models import TINY
from torch import Tensor, nn

from mi2p_inject import ExpandedModel, Layout, SourceFeatures, ViewSpec, inject
from mi2p_inject.core.errors import InjectionWarning, LayoutError, Mi2pError, SelectionError, SourceError
from mi2p_inject.expansion.hook import SiteHook

WORDS = ViewSpec.tokens(12)
PICTURES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def expand(model: nn.Module, **options: Any) -> ExpandedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InjectionWarning)
        return inject(
            model, **{"layers": "0", "source_spec": WORDS, "example_inputs": PICTURES, "zero_init": None} | options
        )


def vit(**options: Any) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 4, "num_classes": 5}
    return VisionTransformer(**sizes | options)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("how", ["eject", "drop"])
@pytest.mark.parametrize("train", ["units", "all"])
def test_the_last_of_several_gives_the_backbone_back(order: tuple[int, int], how: str, train: str) -> None:
    model = net().train()
    model[1].eval()
    before = snapshot(model)
    models = [expand(model, trainable="units"), expand(model, trainable=train)]
    for index in order:
        if how == "eject":
            models[index].eject()
        models[index] = None  # type: ignore[call-overload]
        gc.collect()
    assert snapshot(model) == before


def test_a_cell_run_twice_then_ejected() -> None:
    model = net().train()
    before = snapshot(model)
    me = expand(model, trainable="units")
    me = expand(model, trainable="units")
    me.eval()
    assert me.eject() is model
    assert snapshot(model) == before


@pytest.mark.parametrize("first", ["units", "all"])
def test_what_one_model_freezes_trains_again_without_it(first: str) -> None:
    model, other = net(), "all" if first == "units" else "units"
    model[1].requires_grad_(False)
    models = {first: expand(model, trainable=first)}
    if first == "all":
        model[0].bias.requires_grad_(False)
    models[other] = expand(model, trainable=other)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    models["units"].eject()
    training = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    every = {name for name, _ in model.named_parameters()} - {name for name, _ in model[1].named_parameters("1")}
    assert training == (every if first == "units" else every - {"0.bias"})


def test_a_dropped_model_gives_its_source_encoder_back() -> None:
    encoder = TINY["clip_text"].build().train()
    before = snapshot(encoder)
    me = expand(net(), source_encoder=encoder, source_spec=None)
    assert snapshot(encoder) != before
    del me
    gc.collect()
    assert snapshot(encoder) == before
    inject(encoder, layers="paper", source_spec=ViewSpec.map(4, 2, 2)).eject()


def test_two_models_share_a_source_encoder() -> None:
    encoder = TINY["clip_text"].build().train()
    before = snapshot(encoder)
    batch = TINY["clip_text"].inputs(2, 0)[0]
    one, two = (expand(net(), source_encoder=encoder, source_spec=None) for _ in range(2))
    one.eject()
    two(PICTURES, source=batch)
    with pytest.raises(Mi2pError, match="frozen source encoder"):
        inject(encoder, layers="paper", source_spec=ViewSpec.map(4, 2, 2))
    two.eject()
    assert snapshot(encoder) == before


@pytest.mark.parametrize("how", [copy.deepcopy, lambda me: pickle.loads(pickle.dumps(me))])
def test_a_copy_with_an_encoder_ejects_to_what_its_original_was(how: Any) -> None:
    model, encoder = net().train(), TINY["clip_text"].build().train()
    batch = TINY["clip_text"].inputs(2, 0)[0]
    me = expand(model, source_encoder=encoder, source_spec=None, trainable="units")
    me.eval()
    other = how(me)
    assert torch.equal(other(PICTURES, source=batch), me(PICTURES, source=batch))
    del me
    gc.collect()
    back = other.eject()
    assert all(module.training for module in back.modules())
    assert all(parameter.requires_grad for parameter in back.parameters())
    assert all(module.training for module in other.source_encoder.modules())
    assert not any(module._forward_hooks for module in back.modules())


@pytest.mark.fault("S9", "a shallow copy (copy.copy) that goes, or whose original goes", "the other one works on")
def test_a_shallow_copy_and_its_original_outlive_each_other() -> None:
    me = expand(net().train())
    wanted = me(PICTURES, source=token_features(2))
    other = copy.copy(copy.copy(me))
    copied = copy.deepcopy(other)
    del other
    gc.collect()
    assert torch.equal(me(PICTURES, source=token_features(2)), wanted)
    other = copy.copy(me)
    del me
    gc.collect()
    assert torch.equal(other(PICTURES, source=token_features(2)), wanted)
    pickled = pickle.loads(pickle.dumps(other))
    back = other.eject()
    assert not any(module._forward_hooks for module in back.modules())
    for one in (copied, pickled):
        assert torch.equal(one(PICTURES, source=token_features(2)), wanted)


def test_a_copied_backbone_carries_nothing_that_counts() -> None:
    model = net()
    me = expand(model)
    ghost = copy.deepcopy(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", InjectionWarning)
        back = inject(ghost, layers="0", source_spec=WORDS, example_inputs=PICTURES).eject()
    assert not back[0]._forward_hooks
    other = expand(model)
    copied = copy.deepcopy(me)
    assert not copied.eject()[0]._forward_hooks
    assert len([hook for hook in model[0]._forward_hooks.values() if isinstance(hook, SiteHook)]) == 2
    other.eject()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_need_no_example(dtype: torch.dtype) -> None:
    model = vit().to(dtype)
    me = inject(model, layers="paper", source_encoder=TINY["bert"].build().to(dtype))
    args = torch.randn(2, 3, 32, 32, dtype=dtype)
    out = me(args, source={"input_ids": torch.ones(2, 4, dtype=torch.long)})
    assert torch.equal(out, model(args))
    assert out.dtype == dtype


class TestPatchGrid:
    def view_of(self, me: ExpandedModel, image: Tensor) -> list[tuple[int, ...]]:
        seen: list[tuple[int, ...]] = []
        unit = me.unit(me.sites[0].path)
        handle = unit.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[2:])))
        me(image, source=token_features(len(image)))
        handle.remove()
        return seen

    @pytest.mark.parametrize("size", [(48, 48), (32, 72), (32, 64), (64, 40)])
    def test_follows_the_image(self, size: tuple[int, int]) -> None:
        me = inject(vit(img_size=48, dynamic_img_size=True), layers="paper", source_spec=WORDS)
        assert self.view_of(me, torch.randn(2, 3, *size)) == [(size[0] // 8, size[1] // 8)]

    def test_strict_raises_at_another_grid_of_as_many_patches(self) -> None:
        me = inject(vit(img_size=48, dynamic_img_size=True), layers="paper", source_spec=WORDS, strict=True)
        with pytest.raises(LayoutError, match="strict"):
            me(torch.randn(2, 3, 32, 72), source=token_features(2))

    def test_dropped_patches_are_no_grid(self) -> None:
        me = inject(vit(patch_drop_rate=0.75), layers="paper", source_spec=WORDS).train()
        with pytest.raises(LayoutError, match="patch dropout"):
            me(torch.randn(2, 3, 32, 32), source=token_features(2))


@pytest.mark.parametrize("name", ["keys", "values", "items", "pop", "update", "forward_", "train_"])
def test_site_names_that_are_attributes(name: str) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module(name, nn.Conv2d(3, 6, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.get_submodule(name)(x)

    me = expand(Odd(), layers=name)
    assert not torch.equal(me(PICTURES, source=token_features(2)), me(PICTURES))


def test_half_precision_scores_do_not_overflow() -> None:
    model = nn.Sequential(nn.Linear(64, 64)).half()
    x = (torch.randn(2, 5, 64) * 200).half()
    me = inject(model, layers="0", layout=Layout("NLC"), source_spec=ViewSpec.tokens(64), example_inputs=x)
    out = me(x, source=SourceFeatures((torch.randn(2, 7, 64) * 200).half()))
    assert torch.isfinite(out).all()


def test_features_made_in_inference_mode_train() -> None:
    with torch.inference_mode():
        features = map_features(2)
    me = expand(net(), source_spec=features.spec)
    me(PICTURES, source=features).sum().backward()


def test_a_second_name_of_a_module_is_the_module() -> None:
    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 6, 1)
            self.second = self.first

        def forward(self, x: Tensor) -> Tensor:
            return self.second(x)

    assert [site.path for site in expand(Twins(), layers="second").sites] == ["first"]


def test_several_encoders_are_fine_where_everything_is_given() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = TINY["resnet"].build(), TINY["resnet"].build()

        def forward(self, x: Tensor) -> Tensor:
            return self.left(x) + self.right(x)

    x = TINY["resnet"].inputs(2, 0)[0][0]
    assert len(expand(Both(), layers=["left.layer1", "right.layer1"], example_inputs=x).sites) == 2


@pytest.mark.parametrize(
    ("options", "kind"),
    [({"layout": "NCHW"}, LayoutError), ({"layout": {"0": "NCHW"}}, LayoutError),
     ({"layout": {"nope": Layout("NCHW")}}, SelectionError), ({"source_spec": 768}, SourceError),
     ({"layers": nn.Conv2d}, SelectionError), ({"layers": nn.Conv2d(1, 1, 1)}, SelectionError),
     ({"channel_embedding_dim": "no"}, Mi2pError), ({"trainable": "none"}, Mi2pError),
     ({"view": "picture"}, Mi2pError)],
)  # fmt: skip
def test_wrong_kinds_of_arguments(options: dict[str, Any], kind: type[Mi2pError]) -> None:
    with pytest.raises(kind, match=r"(?s)expected: .*given: .*fix: "):
        expand(net(), **options)


def test_wrong_axes() -> None:
    with pytest.raises(LayoutError, match="NCHW or NHWC"):
        Layout("NWHC")  # type: ignore[arg-type]


def test_a_batch_the_encoder_does_not_take() -> None:
    me = expand(net(), source_encoder=TINY["bert"].build(), source_spec=None)
    for batch in ({"pixels": PICTURES}, PICTURES, ()):
        with pytest.raises(SourceError, match="does not take this batch"):
            me(PICTURES, source=batch)


def test_masks_that_are_no_tensors() -> None:
    with pytest.raises(SourceError):
        expand(net())(PICTURES, source=token_features(2), source_mask=[True, False])
    with pytest.raises(SourceError):
        SourceFeatures(torch.zeros(1, 1, 12), [[1]])  # type: ignore[arg-type]
