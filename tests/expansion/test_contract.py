"""The contract, over every adapter: each tiny model is a real class with random weights."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from helpers import first_tensor, map_features, token_features
from models import HEADED, TINY
from torch.nn.utils.parametrize import is_parametrized

from mi2p_inject import ViewSpec, inject
from mi2p_inject.testing import Check, Subject, iter_checks, prepare

BATCH = 3
MODELS = {**TINY, **{f"{name} with head": tiny for name, tiny in HEADED.items()}}
INSIDE = ("threads", "two_models")
"""Checks of what a head has no part in."""


@lru_cache(maxsize=2)
def subject(name: str, role: str) -> Subject:
    """Prepared once for all checks of a model; those stand next to each other in the order of tests."""
    args, kwargs = MODELS[name].inputs(BATCH, seed=1)
    return prepare(MODELS[name].build(), role, kwargs or args)


@pytest.mark.parametrize("check", iter_checks(as_source=False), ids=str)
@pytest.mark.parametrize("name", TINY)
def test_as_backbone(name: str, check: Check) -> None:
    run(name, check)


@pytest.mark.parametrize("check", iter_checks(as_source=False, skip=INSIDE), ids=str)
@pytest.mark.parametrize("name", [name for name in MODELS if name not in TINY])
def test_as_backbone_with_head(name: str, check: Check) -> None:
    run(name, check)


@pytest.mark.parametrize("check", iter_checks(as_backbone=False), ids=str)
@pytest.mark.parametrize("name", TINY)
def test_as_source(name: str, check: Check) -> None:
    run(name, check)


def run(name: str, check: Check) -> None:
    """Nothing is left unasked of these models, but that torch pickles no parametrised module."""
    ready = subject(name, check.role)
    result = check(ready)
    assert result.found
    if check.name == "copies" and any(is_parametrized(module) for module in ready.model.modules()):
        assert result.notes == ("the model itself cannot be pickled: RuntimeError",)
    else:
        assert not result.notes


def test_views_are_used_in_all_four_combinations() -> None:
    """Map and token sites, map and token sources: every pair runs and differs from the backbone."""
    for name in ("densenet", "bert"):
        for features in (token_features(BATCH), map_features(BATCH)):
            model = TINY[name].build()
            args, kwargs = TINY[name].inputs(BATCH, seed=0)
            me = inject(model, layers="paper", source_spec=features.spec, example_inputs=kwargs or args, zero_init=None)
            out = first_tensor(me(*args, source=features, **kwargs))
            assert not torch.equal(out, first_tensor(model(*args, **kwargs)))
    assert {ViewSpec.of(token_features(1).data).kind, ViewSpec.of(map_features(1).data).kind} == {"tokens", "map"}
