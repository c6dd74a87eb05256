"""Units mi2p with random weights, and their residuals for features as a user gives them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mi2p_inject import MI2P, SourceFeatures, ViewSpec
from mi2p_inject.sources.features import prepare
from mi2p_inject.units.mi2p import MI2PUnit


def random_unit(site: ViewSpec, source: ViewSpec, dtype: torch.dtype = torch.float64, **options: Any) -> MI2PUnit:
    """A unit whose every parameter is random, also those that start at zero."""
    torch.manual_seed(0)
    unit = MI2P(**options).build(site, source).to(dtype)
    for parameter in unit.parameters():
        parameter.data.normal_()
    return unit


def run(unit: MI2PUnit, view: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
    """What a unit adds to a view, its source prepared in the unit's dtype."""
    residual: Tensor = unit(view, prepare(SourceFeatures(source, mask), unit.source, next(unit.parameters()).dtype))
    return residual
