"""How much memory an expanded model needs: weights, units, what a forward keeps. Counted on fake tensors, none made."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from mi2p_inject.core.errors import ProbeError
from mi2p_inject.core.inputs import Inputs, tensors_in
from mi2p_inject.core.views import ViewSpec
from mi2p_inject.inspection.dry_run import on_fake_tensors
from mi2p_inject.report.cost import DEFAULT_TOKENS, empty_view, text_length
from mi2p_inject.sources.features import SourceFeatures, prepare
from mi2p_inject.units.base import UnitConfig

__all__ = ["ADAM_STATES", "MemoryPlan", "SiteMemory", "held_bytes", "plan_memory"]

ADAM_STATES = 2
"""Numbers that AdamW keeps for each trained one, in the type of the weight."""
_UNIT_BYTES = 4


@dataclass(frozen=True)
class SiteMemory:
    """Of one unit, in bytes: its weights, and the most that its forward holds without and with gradients."""

    path: str
    weights: int
    inference: int
    training: int


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that an expanded model needs, and for what.

    Weights, gradients and optimizer states follow from the numbers of parameters. Activations are the most that is
    alive at once in a forward in eval mode, weights apart: with gradients, that is what autograd keeps for the backward
    pass too. Not in it: what the backward pass holds for a moment, dropout's masks, the allocator's own losses, the
    source encoder.

    Attributes:
        batch: samples.
        tokens: of each, where the model reads ids; 0: it reads something else, at the size of its example inputs.
        source_tokens: of each sample's source.
        dtype: of the backbone; units are counted in float32.
        weights: of the backbone, buffers included.
        inference: activations of the backbone without gradients.
        frozen: activations of the backbone where units train and it does not: from the first site on.
        trained: activations of the backbone where all of it trains.
        sites: of the units.
    """

    batch: int
    tokens: int
    source_tokens: int
    dtype: torch.dtype
    weights: int
    inference: int
    frozen: int
    trained: int
    sites: tuple[SiteMemory, ...]

    @property
    def unit_weights(self) -> int:
        """Of all units."""
        return sum(site.weights for site in self.sites)

    def totals(self) -> dict[str, dict[str, int]]:
        """`inference`, `training, trainable=units` and `training, all` -> what the bytes are for, and their `total`."""
        units, activations = self.unit_weights, sum(site.training for site in self.sites)
        ways = {
            "inference": {
                "weights": self.weights + units,
                "activations": self.inference + max((site.inference for site in self.sites), default=0),
            },
            "training, trainable=units": {
                "weights": self.weights + units,
                "gradients": units,
                "optimizer": ADAM_STATES * units,
                "activations": self.frozen + activations,
            },
            "training, trainable=all": {
                "weights": self.weights + units,
                "gradients": self.weights + units,
                "optimizer": ADAM_STATES * (self.weights + units),
                "activations": self.trained + activations,
            },
        }
        return {way: {**parts, "total": sum(parts.values())} for way, parts in ways.items()}

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form."""
        sites = [vars(site) for site in self.sites]
        dtype = str(self.dtype).removeprefix("torch.")
        return {**vars(self), "dtype": dtype, "sites": sites, "totals": self.totals()}


def plan_memory(
    model: nn.Module,
    inputs: Inputs,
    sites: Mapping[str, ViewSpec],
    source: ViewSpec,
    unit: UnitConfig,
    num_heads: int,
    *,
    batch: int = 1,
    tokens: int = 0,
    source_tokens: int = DEFAULT_TOKENS,
) -> MemoryPlan:
    """What an expanded model would need in memory.

    Args:
        model: the backbone, on any device, meta included; in the type in which it shall compute.
        inputs: of an example call; of ids, batch and length are set as asked for, of others the batch.
        sites: where units would be -> what each sees, in firing order.
        source: what they attend to.
        unit: their kind.
        num_heads: as a unit has by default.
        batch: samples.
        tokens: ids of a sample; 0: as many as the example has.
        source_tokens: of a source of tokens.

    Raises:
        ProbeError: the model does not run on such inputs.
    """
    if source.kind == "map":
        source_tokens = source.width
    reads_ids = _reads_ids(inputs)
    tokens = (tokens or text_length(inputs)) if reads_ids else 0
    inputs = _resized(inputs, batch, tokens)
    first = next(iter(sites), None)
    forward = {
        (gradients, start): _forward_bytes(model, inputs, gradients, start)
        for gradients, start in {(False, None), (False, first), (True, None)}
    }
    of_units = tuple(
        SiteMemory(path, *_unit_bytes(unit, spec, source, num_heads, batch, tokens or DEFAULT_TOKENS, source_tokens))
        for path, spec in sites.items()
    )
    state = {id(one): one for one in (*model.parameters(), *model.buffers())}.values()
    floating = next((one.dtype for one in state if one.is_floating_point()), torch.float32)
    return MemoryPlan(
        batch,
        tokens,
        source_tokens,
        floating,
        sum(one.numel() * one.itemsize for one in state),
        forward[False, None],
        forward[False, first],
        forward[True, None],
        of_units,
    )


class held_bytes(TorchDispatchMode):  # noqa: N801  # a block, as torch.no_grad is
    """A block that notes the most bytes of new tensors that were alive at once in it: `peak`.

    Examples:
        >>> x = torch.zeros(1000, device="meta")
        >>> with held_bytes() as held:
        ...     y = x + 1
        ...     for _ in range(5):
        ...         y = y * 2
        >>> held.peak
        8000
    """

    def __init__(self, given: Any = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak: int = 0
        self._now: int = 0
        self._alive: dict[int, int] = {_address(leaf): 0 for leaf in given}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(output):
            if isinstance(leaf, Tensor):
                self._note(leaf)
        return output

    def _note(self, tensor: Tensor) -> None:
        storage, address = tensor.untyped_storage(), _address(tensor)
        if address in self._alive:
            return
        self._alive[address] = size = storage.nbytes()
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._gone, address)

    def _gone(self, address: int) -> None:
        self._now -= self._alive.pop(address, 0)


def _address(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _forward_bytes(model: nn.Module, inputs: Inputs, gradients: bool, start: str | None) -> int:
    """The most that one forward holds beside weights and inputs; gradients from the site `start` on, or everywhere."""
    try:
        with on_fake_tensors(model, gradients) as (copy, convert):
            args, kwargs = convert(inputs)
            if start is not None:
                copy.get_submodule(start).register_forward_hook(_require_gradients)
            known = [*copy.parameters(), *copy.buffers(), *tensors_in((args, kwargs))]
            held = held_bytes(known)
            with torch.set_grad_enabled(gradients or start is not None), held:
                output = copy(*args, **kwargs)
            del output
            return held.peak
    except Exception as error:
        raise ProbeError(
            f"the memory of {type(model).__name__} cannot be counted: {type(error).__name__}: {error}",
            expected="a model that runs on tensors without content",
            given="inputs of the asked batch and length",
            fix="a smaller length, or no --memory",
        ) from error


def _require_gradients(module: nn.Module, args: Any, output: Any) -> Any:
    """What a unit does there: a sum that has a gradient."""
    residual = torch.zeros((), requires_grad=True)

    def require(tensor: Tensor) -> Tensor:
        return tensor + residual.to(tensor.dtype) if tensor.is_floating_point() else tensor

    return pytree.tree_map_only(Tensor, require, output)


def _unit_bytes(
    config: UnitConfig, site: ViewSpec, source: ViewSpec, num_heads: int, batch: int, tokens: int, source_tokens: int
) -> tuple[int, int, int]:
    """Weights, and the most that a forward holds without and with gradients."""
    with torch.device("meta"):
        unit = config.build(site, source, num_heads)
        features = SourceFeatures(empty_view(source, source_tokens, batch))
        view = empty_view(site, tokens, batch)

        def held(forward: Callable[[], Any]) -> int:
            found = held_bytes([*unit.parameters(), *unit.buffers(), view, features.data])
            with found:
                output = forward()
            del output
            return found.peak

        def run() -> Any:
            return unit(view, prepare(features, source, torch.float32))

        weights = sum(one.numel() for one in unit.parameters()) * _UNIT_BYTES
        with torch.no_grad():
            alone = held(run)
        with torch.enable_grad():
            return weights, alone, held(run)


def _reads_ids(inputs: Inputs) -> bool:
    tensors = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]
    return bool(tensors) and tensors[0].dim() == 2 and not tensors[0].is_floating_point()


def _resized(inputs: Inputs, batch: int, tokens: int) -> Inputs:
    """Inputs of another batch, and where they are ids of another length."""
    rows = next((leaf.shape[0] for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor) and leaf.dim()), 1)
    length = text_length(inputs)

    def fit(tensor: Tensor) -> Tensor:
        if not tensor.dim() or tensor.shape[0] != rows:
            return tensor
        sizes = [batch, *tensor.shape[1:]]
        if tokens and tensor.dim() >= 2 and not tensor.is_floating_point():
            sizes[1:] = [tokens if size == length else size for size in sizes[1:]]
        return torch.ones(sizes, dtype=tensor.dtype, device=tensor.device)

    resized: Inputs = pytree.tree_map_only(Tensor, fit, inputs)
    return resized
