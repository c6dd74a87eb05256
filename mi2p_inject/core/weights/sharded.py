"""Modules that torch's `fully_shard` has made a group of their own."""

from __future__ import annotations

from torch import nn

from mi2p_inject.core.errors import InjectionError

__all__ = ["is_sharded", "sharded_apart"]


def is_sharded(module: nn.Module) -> bool:
    """Whether the weights of this module are gathered for its own forward."""
    return hasattr(module, "unshard") and hasattr(module, "reshard")


def sharded_apart(path: str, given: str) -> InjectionError:
    """The error about units that are gathered by themselves, where they cannot be.

    Args:
        path: of the site; "" where it is about all units.
        given: what was sharded.
    """
    return InjectionError(
        "fully_shard has made units a group of their own",
        path=path,
        expected="units in the group of the expanded model, which every process gathers in every step",
        given=given,
        fix="shard the backbone's layers and then the whole: fully_shard(layer, ...), fully_shard(me, ...)",
    )
