"""Cost of units against one size, each pair of sizes measured in turn in one process."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from benchmarks.measure import side_by_side
from benchmarks.scaling import unit_step
from mi2p_inject import ViewSpec

__all__ = ["AXES", "measured_ratios"]

TOKENS, MAP = ViewSpec.tokens(768), ViewSpec.map(1024, 7, 7)

#: what grows -> (its sizes, the first one is compared with; step at a size)
AXES: dict[str, tuple[tuple[int, ...], Callable[[int], Callable[[], object]]]] = {
    "sites (768 wide, source 1024×7×7)": ((1, 4, 12), functools.partial(unit_step, TOKENS, MAP, 64, 64)),
    "tokens of the source (site 256×28×28)": (
        (32, 128, 512), functools.partial(unit_step, ViewSpec.map(256, 28, 28), TOKENS, 64),
    ),
    "channels of the site (28×28, source of 64 tokens)": (
        (64, 256, 1024), lambda size: unit_step(ViewSpec.map(size, 28, 28), TOKENS, 64, 64),
    ),
    "channels of the source (7×7, site of 64 tokens)": (
        (64, 256, 1024), lambda size: unit_step(TOKENS, ViewSpec.map(size, 7, 7), 64, 64),
    ),
}  # fmt: skip


def measured_ratios(rounds: int = 7) -> list[dict[str, Any]]:
    """Each size ÷ the first one: median, quartiles, samples; for a fresh process."""
    from benchmarks.models import quiet

    quiet()
    found = []
    for name, (sizes, build) in AXES.items():
        for size in sizes[1:]:
            pair = side_by_side(build(sizes[0]), build(size), rounds=rounds)
            found.append(
                {"axis": name, "base": sizes[0], "size": size, "ratio": pair.ratio, "spread": pair.spread,
                 "samples": {"base": pair.base, "ours": pair.ours}}
            )  # fmt: skip
    return found
