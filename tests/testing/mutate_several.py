"""What is broken on purpose where a backbone has two named sources."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mi2p_inject.core.expansion_config import ExpansionConfig
from mi2p_inject.expansion import expanded_model, running
from mi2p_inject.expansion.hook import SiteHook
from mi2p_inject.units.unit_dict import UnitDict

Patch = pytest.MonkeyPatch


def only_the_last_source_adds(patch: Patch) -> dict[str, Any]:
    residual = SiteHook._residual

    def skip(site: SiteHook, call: Any, place: Any, view: Tensor, recomputed: bool) -> Tensor | None:
        last = list(call.sources)[-1] if call.sources else None
        return residual(site, call, place, view, recomputed) if place.source == last else None

    patch.setattr(SiteHook, "_residual", skip)
    return {}


def sources_share_their_units(patch: Patch) -> dict[str, Any]:
    build = expanded_model.build_units

    def shared(backbone: Any, config: ExpansionConfig) -> UnitDict:
        units = build(backbone, config)
        for place in config.places:
            units[place.key] = units[f"{next(iter(config.sources))}/{place.key.split('/', 1)[1]}"]
        return units

    patch.setattr(expanded_model, "build_units", shared)
    return {}


def a_missing_source_is_the_other_one(patch: Patch) -> dict[str, Any]:
    given_sources = running.given_sources

    def filled(source: Any, mask: Any, names: Any) -> Any:
        given = given_sources(source, mask, names)
        return {name: given.get(name, next(iter(given.values()))) for name in names} if given else given

    patch.setattr(running, "given_sources", filled)
    return {}


def a_mask_is_of_all_sources(patch: Patch) -> dict[str, Any]:
    given_sources = running.given_sources

    def spread(source: Any, mask: Any, names: Any) -> Any:
        given = given_sources(source, mask, names)
        found = next((one for _, one in given.values() if one is not None), None)
        return {name: (batch, found) for name, (batch, _) in given.items()}

    patch.setattr(running, "given_sources", spread)
    return {}


def a_mask_is_of_other_rows(patch: Patch) -> dict[str, Any]:
    given_sources = running.given_sources

    def rolled(source: Any, mask: Any, names: Any) -> Any:
        given = given_sources(source, mask, names)
        return {name: (batch, one if one is None else torch.roll(one, 1)) for name, (batch, one) in given.items()}

    patch.setattr(running, "given_sources", rolled)
    return {}
