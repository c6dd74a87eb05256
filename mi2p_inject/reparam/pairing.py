"""Which weights of an auxiliary model stand beside which weights of a target: blocks in order, layers by role."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mi2p_inject.adapters.adapter import Adapter
from mi2p_inject.adapters.table import adapters
from mi2p_inject.core.errors import PathwayError
from mi2p_inject.inspection.resolve import ResolvedModel

__all__ = ["PairedWeight", "Part", "pair"]

APART = ("query", "key", "value")


@dataclass(frozen=True)
class Part:
    """Rows of one parameter of the auxiliary model; `third` None: all of them, 0 to 2: one third (a fused q, k, v)."""

    path: str
    third: int | None = None

    def of(self, parameter: Tensor) -> Tensor:
        """The rows."""
        return parameter if self.third is None else parameter.chunk(3)[self.third]


@dataclass(frozen=True)
class PairedWeight:
    """One weight of the target and what of the auxiliary model is added to it.

    Attributes:
        path: the target's parameter.
        role: what the layer does in its block.
        parts: the auxiliary's rows, stacked along the first axis.
    """

    path: str
    role: str
    parts: tuple[Part, ...]


def pair(target: ResolvedModel, auxiliary: ResolvedModel, blocks: Sequence[tuple[int, int]]) -> list[PairedWeight]:
    """Pair the linear layers of two transformers' blocks.

    Fused and separate projections pair up: a fused q, k, v of one side stands beside the three of the other, stacked.

    Args:
        target: the model that is re-parameterised.
        auxiliary: the model whose weights are added.
        blocks: pairs of block numbers (of the target, of the auxiliary).

    Raises:
        PathwayError: an adapter does not describe its blocks, or two weights have different shapes.
    """
    found = []
    for own, other in blocks:
        here, ours = _weights(target, own, "model")
        there, theirs = _weights(auxiliary, other, "auxiliary")
        for role, name in ours.items():
            parts = _parts(role, there, theirs)
            if parts:
                found.append(PairedWeight(f"{here}.{name}", role, parts))
    names: dict[int, list[str]] = {}
    for name, parameter in target.model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    for one in found:
        _check_shapes(target.model, auxiliary.model, one)
        _check_untied(one.path, names[id(target.model.get_parameter(one.path))])
    return found


def _weights(resolved: ResolvedModel, number: int, what: str) -> tuple[str, dict[str, str]]:
    described = resolved.match.adapter.blocks if resolved.match else None
    kind = type(resolved.model).__name__
    if described is None:
        raise PathwayError(
            f"the layers of {what}= are not described by an adapter",
            expected="a transformer of one of: " + ", ".join(one.name for one in _with_blocks()),
            given=kind,
            fix="choose such a model, or give its adapter a `blocks` entry",
        )
    path = resolved.default_paths[number]
    block = resolved.model.get_submodule(path)
    for layer in described.without_weight(block).values():
        raise PathwayError(
            f"a layer of {what}= has no weight of its own to add or to be added to",
            path=f"{path}.{layer}",
            expected="a linear layer with a plain weight",
            given=f"{type(block.get_submodule(layer)).__name__} without one (LoRA, quantisation, pruning or a norm)",
            fix="merge or remove that first; add LoRA or quantise after pathway(...), or after fold()",
        )
    return path, described.weights(block)


def _with_blocks() -> list[Adapter]:
    return [one for one in adapters() if one.blocks is not None]


def _parts(role: str, block: str, theirs: Mapping[str, str]) -> tuple[Part, ...]:
    if role in theirs:
        return (Part(f"{block}.{theirs[role]}"),)
    if role == "qkv" and all(one in theirs for one in APART):
        return tuple(Part(f"{block}.{theirs[one]}") for one in APART)
    if role in APART and "qkv" in theirs:
        return (Part(f"{block}.{theirs['qkv']}", APART.index(role)),)
    return ()


def _check_untied(path: str, names: Sequence[str]) -> None:
    """A weight that another layer uses too would have one sum here and another there, and can hold only one."""
    if len(names) > 1:
        raise PathwayError(
            "two layers of the model share a weight",
            path=path,
            expected="a weight of each layer's own",
            given=f"the same parameter as {next(name for name in (*names, path) if name != path)}",
            fix="untie them: layer.weight = torch.nn.Parameter(layer.weight.detach().clone())",
        )


def _check_shapes(model: nn.Module, auxiliary: nn.Module, one: PairedWeight) -> None:
    own = model.get_parameter(one.path)
    parts = [part.of(auxiliary.get_parameter(part.path)) for part in one.parts]
    fits = len({part.shape[1:] for part in parts}) == 1
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:]) if fits else ()
    if tuple(own.shape) != shape:
        raise PathwayError(
            "the two models have different widths",
            path=one.path,
            expected=f"{one.role} of {tuple(own.shape)}, as the model has",
            given=" and ".join(f"{part.path} {tuple(auxiliary.get_parameter(part.path).shape)}" for part in one.parts),
            fix="choose an auxiliary model of the same hidden and MLP width, such as BERT-base for ViT-B",
        )
    used = [(one.path, own), *((part.path, auxiliary.get_parameter(part.path)) for part in one.parts)]
    for path, tensor in used:
        if type(tensor) is not nn.Parameter or tensor.is_meta:
            raise PathwayError(
                "a weight is no plain parameter with numbers in it",
                path=path,
                expected="torch.nn.Parameter",
                given="one on the meta device" if tensor.is_meta else type(tensor).__name__,
                fix="load the weights; quantise or shard after pathway(...), or after fold()",
            )
        if not tensor.is_floating_point() or (tensor.dtype, tensor.device) != (own.dtype, own.device):
            raise PathwayError(
                "the two weights cannot be added",
                path=path,
                expected=f"{own.dtype} on {own.device}",
                given=f"{tensor.dtype} on {tensor.device}",
                fix="bring both models to one floating dtype and one device: auxiliary.to(...)",
            )
    for path, tensor in used[1:]:
        if not bool(torch.isfinite(tensor).all()):
            raise PathwayError(
                "an auxiliary weight is not finite, and 0 times it is NaN",
                path=path,
                expected="finite numbers",
                given="infinity or NaN",
                fix="load the auxiliary's weights again",
            )
