"""What is broken on purpose where a model is the source encoder: each gives options of `check_model`, or patches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from broken import Encoder

import mi2p_inject.testing.subject
from mi2p_inject import ExpandedModel, SourceFeatures, inject
from mi2p_inject.sources.encoder import Source

Patch = pytest.MonkeyPatch


def source_starts_at_full_strength(patch: Patch) -> dict[str, Any]:
    patch.setattr(mi2p_inject.testing.subject, "inject", partial(inject, zero_init=None))
    return {}


def source_is_encoded_twice(patch: Patch) -> dict[str, Any]:
    run = ExpandedModel._run

    def twice(me: ExpandedModel, function: Any, args: Any, kwargs: Any, source: Any, *more: Any, **named: Any) -> Any:
        if source is not None and not isinstance(source, SourceFeatures):
            me.encode(source)
        return run(me, function, args, kwargs, source, *more, **named)

    patch.setattr(ExpandedModel, "_run", twice)
    return {}


def encode_leaves_modes_alone(patch: Patch) -> dict[str, Any]:
    encode = Source.encode

    def lazy(source: Source, batch: Any) -> SourceFeatures:
        source.encoder.modules = lambda *_: iter(())  # type: ignore[method-assign, assignment]
        try:
            return encode(source, batch)
        finally:
            del source.encoder.modules

    patch.setattr(Source, "encode", lazy)
    return {}


class NeverFrozen(Encoder):
    def eval(self) -> NeverFrozen:
        return self


def encoder_stays_in_train_mode(patch: Patch) -> dict[str, Any]:
    return {"model": NeverFrozen()}


def encoder_trains(patch: Patch) -> dict[str, Any]:
    encode = Source.encode

    def with_gradients(source: Source, batch: Any) -> SourceFeatures:
        features = encode(source, batch)
        scale = sum(parameter.sum() for parameter in source.encoder.parameters())
        return SourceFeatures(features.data + 0.0 * scale, features.mask)

    patch.setattr(Source, "encode", with_gradients)
    return {}


def encoder_is_saved_too(patch: Patch) -> dict[str, Any]:
    state_dict = ExpandedModel.state_dict

    def more(me: ExpandedModel, **options: Any) -> dict[str, Any]:
        assert me.source_encoder is not None
        return state_dict(me, **options) | me.source_encoder.state_dict(**options)

    patch.setattr(ExpandedModel, "state_dict", more)
    return {}


def encode_with(patch: Patch, change: Callable[[SourceFeatures], SourceFeatures]) -> dict[str, Any]:
    encode = Source.encode
    patch.setattr(Source, "encode", lambda source, batch: change(encode(source, batch)))
    return {}


def features_mix_samples(patch: Patch) -> dict[str, Any]:
    first = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)
    return encode_with(patch, lambda one: SourceFeatures(one.data + first * one.data.mean(0)))


def features_hold_nan(patch: Patch) -> dict[str, Any]:
    return encode_with(patch, lambda one: SourceFeatures(one.data.masked_fill(one.data == one.data.max(), torch.nan)))


def a_sample_is_all_padding(patch: Patch) -> dict[str, Any]:
    return encode_with(
        patch, lambda one: SourceFeatures(one.data, torch.tensor([[True], [True], [False]]).expand(3, 5))
    )


def features_of_fewer_samples(patch: Patch) -> dict[str, Any]:
    return encode_with(patch, lambda one: one[:2])


def features_are_constant(patch: Patch) -> dict[str, Any]:
    return encode_with(patch, lambda one: SourceFeatures(torch.zeros_like(one.data)))


def encoder_is_not_given_back(patch: Patch) -> dict[str, Any]:
    patch.setattr(Source, "thaw", lambda source: None)
    return {}
