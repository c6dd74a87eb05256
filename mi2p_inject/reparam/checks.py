"""What `pathway` is given, checked before anything changes."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from mi2p_inject.core.errors import PathwayError
from mi2p_inject.inspection.resolve import ResolvedModel

__all__ = ["Blocks", "check_plain", "check_types", "chosen_blocks", "linear_layers_without"]

Blocks = Sequence[int] | Sequence[tuple[int, int]]

_NOWHERE = -(2**63)


def check_plain(target: ResolvedModel, auxiliary: ResolvedModel) -> None:
    """Raise `PathwayError` where a block's weights are parametrized already."""
    for what, resolved in (("model", target), ("auxiliary", auxiliary)):
        taken = [path for path, module in resolved.model.named_modules() if parametrize.is_parametrized(module)]
        inside = [path for path in taken if any(path.startswith(f"{block}.") for block in resolved.default_paths)]
        if inside:
            raise PathwayError(
                f"the weights of {what}= are parametrized already",
                path=inside[0],
                expected="plain weights",
                given="a parametrization (another pathway, spectral or weight norm)",
                fix="fold() or eject() the first pathway, or remove the parametrization",
            )


def chosen_blocks(blocks: Blocks | None, own: int, other: int) -> list[tuple[int, int]]:
    """The pairs that ``blocks`` names.

    Args:
        blocks: as `pathway` takes them.
        own: how many the model has.
        other: how many the auxiliary has.

    Raises:
        PathwayError: what is no list of blocks that are there.
    """
    if blocks is None:
        return [(number, number) for number in range(min(own, other))]
    given = list(blocks) if isinstance(blocks, Iterable) and not isinstance(blocks, (str, Mapping)) else []
    pairs = [_numbers(one) for one in given]
    chosen = [(here + own if here < 0 else here, there + other if there < 0 else there) for here, there in pairs]
    wrong = [one for one in chosen if not (0 <= one[0] < own and 0 <= one[1] < other)]
    if wrong or not chosen or len({here for here, _ in chosen}) < len(chosen):
        raise PathwayError(
            "blocks= is no list of blocks that are there, each of the model's once",
            expected=f"numbers below {min(own, other)}, or pairs (below {own}, below {other})",
            given=repr(given or blocks),
            fix="leave blocks= out for all that both models have",
        )
    return chosen


def _numbers(one: Any) -> tuple[int, int]:
    """An entry of ``blocks`` as a pair; what is none is a block that no model has."""
    here, there = one if isinstance(one, (tuple, list)) and len(one) == 2 else (one, one)
    try:
        return (_NOWHERE,) * 2 if isinstance(one, bool) else (operator.index(here), operator.index(there))
    except TypeError:
        return _NOWHERE, _NOWHERE


def check_types(model: Any, auxiliary: Any, train_auxiliary: Any) -> None:
    """Raise `PathwayError` for what is no model, or no bool."""
    for name, one in (("model", model), ("auxiliary", auxiliary)):
        if not isinstance(one, nn.Module):
            raise PathwayError(
                f"{name} is no model",
                expected="a torch.nn.Module, built and loaded",
                given=one.__name__ if isinstance(one, type) else type(one).__name__,
                fix=f"pass {name}= as from_pretrained or create_model gave it",
            )
    if not isinstance(train_auxiliary, bool):
        raise PathwayError(
            "train_auxiliary is neither True nor False",
            expected="a bool",
            given=repr(train_auxiliary),
            fix="correct it",
        )


def linear_layers_without(target: ResolvedModel, blocks: Collection[int], paired: Collection[str]) -> list[str]:
    """The linear layers of some blocks that nothing is added to."""
    found = []
    for block in (target.default_paths[number] for number in sorted(blocks)):
        for name, module in target.model.get_submodule(block).named_modules(prefix=block):
            if isinstance(module, nn.Linear) and f"{name}.weight" not in paired:
                found.append(name)
    return found
