"""A late fusion by name, its options checked."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from mi2p_inject.core.errors import FusionError
from mi2p_inject.core.registry import closest
from mi2p_inject.fusion.base import Fusion
from mi2p_inject.fusion.table import FUSIONS

__all__ = ["build_fusion", "fusion_options"]


def build_fusion(
    name: str,
    widths: Sequence[int],
    classes: int,
    *,
    multi_label: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Fusion:
    """A fusion of the table.

    Args:
        name: of `FUSIONS`.
        widths: width D_i of each branch's vector.
        classes: K.
        multi_label: classes are independent yes/no questions.
        options: of this fusion; see its class.

    Raises:
        FusionError: an unknown name or option (the closest one is named), or values out of range.

    Examples:
        >>> from mi2p_inject.fusion import build_fusion
        >>> build_fusion("cross-attention", [512, 384], 3, options={"width": 100}).head.in_features
        200
    """
    cls = FUSIONS[name]
    known = list(fusion_options(name))
    for option in options or {}:
        if option not in known:
            raise FusionError(
                f"the fusion {name!r} has no option {option!r}",
                expected=f"some of {', '.join(known)}" if known else "no options",
                given=option,
                fix=closest(option, known) if known else "leave it out",
            )
    return cls(widths, classes, multi_label=multi_label, **(options or {}))


def fusion_options(name: str) -> dict[str, Any]:
    """Option -> default of a fusion: the keyword arguments of its class besides ``multi_label``.

    Raises:
        FusionError: an unknown name.

    Examples:
        >>> from mi2p_inject.fusion import fusion_options
        >>> fusion_options("cross-attention"), fusion_options("concat")
        ({'width': 512}, {})
    """
    parameters = inspect.signature(FUSIONS[name].__init__).parameters.values()
    return {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY and one.name != "multi_label"}
