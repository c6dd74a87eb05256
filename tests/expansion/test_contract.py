"""The contracts, over every adapter row: each tiny model is a real class with random weights."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import awake, differs, first_tensor, map_features, mixture, same, snapshot, token_features
from models import HEADED, TINY, TinyModel
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from mi2p_inject import ExpandedModel, SourceFeatures, ViewSpec, inject, load
from mi2p_inject.adapters import find

BATCH = 3
ROWS = [pytest.param(tiny, id=name) for name, tiny in TINY.items()]
ALL = ROWS + [pytest.param(tiny, id=name) for name, tiny in HEADED.items()]


def source_for(model: nn.Module, batch: int = BATCH) -> SourceFeatures:
    """Words for a picture model, a picture for every other."""
    match = find(model)
    assert match is not None
    return token_features(batch) if match.adapter.modality == "image" else map_features(batch)


def expand(tiny: TinyModel, **options: Any) -> tuple[nn.Module, ExpandedModel, SourceFeatures]:
    model = tiny.build()
    source = source_for(model)
    args, kwargs = tiny.inputs(BATCH, seed=0)
    example = kwargs or args
    return model, inject(model, source_spec=source.spec, example_inputs=example, **options), source


@pytest.mark.parametrize("tiny", ALL)
class TestBackbone:
    """Contracts 1, 2, 3 and 6, and gradients, with each model as the backbone."""

    def test_identity_at_step_zero(self, tiny: TinyModel) -> None:
        model = tiny.build()
        args, kwargs = tiny.inputs(BATCH, seed=1)
        alone = {}
        for mode in (False, True):
            model.train(mode)
            before = copy.deepcopy(model.state_dict())
            torch.manual_seed(7)
            alone[mode] = model(*args, **kwargs)
            model.load_state_dict(before)  # batch norm moved its statistics
        model.eval()
        me = inject(model, source_spec=source_for(model).spec, example_inputs=kwargs or args)
        for mode in (False, True):
            me.train(mode)
            before = copy.deepcopy(model.state_dict())
            torch.manual_seed(7)
            try:
                same(me(*args, source=source_for(model), **kwargs), alone[mode])
            finally:
                model.load_state_dict(before)

    def test_every_unit_changes_the_output_and_gets_gradient(self, tiny: TinyModel) -> None:
        model, me, source = expand(tiny)
        args, kwargs = tiny.inputs(BATCH, seed=1)
        alone = model(*args, **kwargs)
        for site in me.sites:
            for other in me.sites:
                awake(me.unit(other.path), 1.0 if other == site else 0.0)
            assert differs(me(*args, source=source, **kwargs), alone), site.path
        for site in me.sites:
            awake(me.unit(site.path), 0.1)
        mixture(me(*args, source=source, **kwargs)).backward()
        for name, parameter in me.units.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name

    def test_every_unit_gets_gradient_at_step_zero(self, tiny: TinyModel) -> None:
        _, me, source = expand(tiny)
        args, kwargs = tiny.inputs(BATCH, seed=1)
        mixture(me(*args, source=source, **kwargs)).backward()
        for site in me.sites:
            assert sum(float(p.grad.abs().sum()) for p in me.unit(site.path).parameters() if p.grad is not None), (
                site.path
            )

    def test_missing_source_is_the_backbone_row_by_row(self, tiny: TinyModel) -> None:
        model, me, source = expand(tiny, zero_init=None)
        args, kwargs = tiny.inputs(BATCH, seed=1)
        alone = model(*args, **kwargs)
        same(me(*args, **kwargs), alone)
        there = torch.tensor([True, False, True])
        mixed = first_tensor(me(*args, source=source, source_mask=there, **kwargs))
        full = first_tensor(me(*args, source=source, **kwargs))
        assert torch.equal(mixed[1], first_tensor(alone)[1])
        assert torch.equal(mixed[[0, 2]], full[[0, 2]])
        assert not torch.equal(mixed[0], first_tensor(alone)[0])

    def test_nothing_of_the_backbone_changes_and_eject_gives_it_back(self, tiny: TinyModel) -> None:
        model = tiny.build()
        next(iter(model.children())).train()  # a mixed state must come back as it was
        next(model.parameters()).requires_grad_(False)
        theirs: list[str] = []
        handle = model.register_forward_hook(lambda *_: theirs.append("called"))
        args, kwargs = tiny.inputs(BATCH, seed=1)
        model(*args, **kwargs)  # transformers installs hooks of its own at the first call
        before = snapshot(model)
        theirs.clear()
        source = source_for(model)
        me = inject(model, source_spec=source.spec, example_inputs=kwargs or args, trainable="units")
        assert theirs == []  # the dry run does not call other people's hooks
        assert list(model.state_dict()) == before.keys
        assert {id(p) for p in model.parameters()} == before.identities
        assert type(model) is before.cls
        me.train()
        me.eval()
        me(*args, source=source, **kwargs)
        assert theirs == ["called"]
        assert me.eject() is model
        assert snapshot(model) == before
        handle.remove()

    def test_an_exception_leaves_nothing_behind(self, tiny: TinyModel) -> None:
        model, me, source = expand(tiny, zero_init=None)
        args, kwargs = tiny.inputs(BATCH, seed=1)
        alone = first_tensor(model(*args, **kwargs))
        handle = model.get_submodule(me.sites[-1].path).register_forward_hook(_fail)
        with pytest.raises(ZeroDivisionError):
            me(*args, source=source, **kwargs)
        handle.remove()
        assert torch.equal(first_tensor(model(*args, **kwargs)), alone)
        assert torch.equal(first_tensor(me(*args, **kwargs)), alone)

    def test_copies_use_their_own_units(self, tiny: TinyModel) -> None:
        model, me, source = expand(tiny, zero_init=None)
        args, kwargs = tiny.inputs(BATCH, seed=1)
        expected = first_tensor(me(*args, source=source, **kwargs))
        copies = [copy.deepcopy(me)]
        if not any(is_parametrized(module) for module in model.modules()):  # torch does not pickle these at all
            copies.append(pickle.loads(pickle.dumps(me)))
        for other in copies:
            assert torch.equal(first_tensor(other(*args, source=source, **kwargs)), expected)
            with torch.no_grad():
                for parameter in other.units.parameters():
                    parameter.zero_()
            same(other(*args, source=source, **kwargs), model(*args, **kwargs))
            assert torch.equal(first_tensor(me(*args, source=source, **kwargs)), expected)

    def test_a_checkpoint_comes_back_on_a_fresh_backbone(self, tiny: TinyModel, tmp_path: Path) -> None:
        _, me, source = expand(tiny, zero_init=None)
        args, kwargs = tiny.inputs(BATCH, seed=1)
        with torch.no_grad():
            for parameter in me.backbone.parameters():
                parameter.add_(0.01)  # what was trained must come from the file
        expected = first_tensor(me(*args, source=source, **kwargs))
        me.save_pretrained(tmp_path)
        again = load(tmp_path, backbone=tiny.build())
        assert torch.equal(first_tensor(again(*args, source=source, **kwargs)), expected)
        assert again.sites == me.sites


@pytest.mark.parametrize("tiny", ROWS)
class TestSourceEncoder:
    """Contracts 2 and 7, with each model as the frozen source encoder."""

    @pytest.fixture
    def backbone(self) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
        )

    @pytest.fixture
    def counted(self, tiny: TinyModel) -> Iterator[tuple[nn.Module, list[int]]]:
        encoder, calls = tiny.build(), []
        inner = next(
            module for module in encoder.modules() if not list(module.children()) and list(module.parameters())
        )
        handle = inner.register_forward_hook(lambda *_: calls.append(1))
        yield encoder, calls
        handle.remove()

    def test_one_frozen_encode_a_forward(
        self, tiny: TinyModel, backbone: nn.Module, counted: tuple[nn.Module, list[int]]
    ) -> None:
        encoder, calls = counted
        encoder.train()
        before = snapshot(encoder)
        args, kwargs = tiny.inputs(BATCH, seed=2)
        batch = kwargs or args
        x = torch.randn(BATCH, 3, 8, 8)
        me = inject(
            backbone, layers="0", source_encoder=encoder, example_inputs=x, source_example_inputs=batch, zero_init=None
        )
        me.train()
        assert not any(module.training for module in encoder.modules())
        values = {key: tensor.clone() for key, tensor in encoder.state_dict().items()}
        calls.clear()
        out = me(x, source=batch)
        once = len(calls)
        out.sum().backward()
        features = me.encode(batch)
        assert len(calls) == 2 * once  # the forward encoded exactly as often as one encode does
        calls.clear()
        assert torch.equal(me(x, source=features), out)
        assert calls == []  # given features are not encoded again
        assert all(parameter.grad is None for parameter in encoder.parameters())
        assert all(torch.equal(tensor, values[key]) for key, tensor in encoder.state_dict().items())
        assert not torch.equal(out, backbone(x))
        assert not any(key.startswith(("source", "_source")) for key in me.state_dict())
        me.eject()
        assert snapshot(encoder) == before

    def test_features_are_the_rows(self, tiny: TinyModel, backbone: nn.Module) -> None:
        """Each sample's features depend on that sample alone, and padding is masked."""
        encoder = tiny.build()
        args, kwargs = tiny.inputs(BATCH, seed=2)
        x = torch.randn(BATCH, 3, 8, 8)
        me = inject(
            backbone, layers="0", source_encoder=encoder, example_inputs=x, source_example_inputs=kwargs or args
        )
        features = me.encode(kwargs or args)
        assert len(features) == BATCH
        flipped = me.encode({k: v.flip(0) for k, v in kwargs.items()} if kwargs else tuple(a.flip(0) for a in args))
        torch.testing.assert_close(flipped.data.flip(0), features.data, atol=1e-5, rtol=1e-4)
        if features.mask is not None:
            assert features.mask.any(1).all()


def _fail(*_: object) -> Tensor:
    raise ZeroDivisionError


def test_views_are_used_in_all_four_combinations() -> None:
    """Map and token sites, map and token sources: every pair runs and differs from the backbone."""
    for row in ("densenet", "bert"):
        for features in (token_features(BATCH), map_features(BATCH)):
            model = TINY[row].build()
            args, kwargs = TINY[row].inputs(BATCH, seed=0)
            me = inject(model, source_spec=features.spec, example_inputs=kwargs or args, zero_init=None)
            out = first_tensor(me(*args, source=features, **kwargs))
            assert not torch.equal(out, first_tensor(model(*args, **kwargs)))
    assert {ViewSpec.of(token_features(1).data).kind, ViewSpec.of(map_features(1).data).kind} == {"tokens", "map"}
