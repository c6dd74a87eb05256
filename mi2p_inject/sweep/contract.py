"""The contract, checked on one real model: as a backbone and as a source encoder.

A refusal at `inject` time is a fine answer; a model that is taken must keep every promise. `BrokenError` names the one
that was not kept: the one outcome that must never happen.
"""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mi2p_inject.adapters import Match, find
from mi2p_inject.borrow import HOOKS
from mi2p_inject.expanded import ExpandedModel
from mi2p_inject.features import SourceFeatures
from mi2p_inject.injection import inject
from mi2p_inject.probe import Inputs, tensors_in
from mi2p_inject.source import example_inputs_of
from mi2p_inject.sweep.feed import real_inputs
from mi2p_inject.units.base import Unit
from mi2p_inject.views import ViewSpec

SOURCE_WIDTH, SOURCE_LENGTH, STEP, SEED = 12, 5, 0.01, 0
TOLERANCE = 1e-3
"""Of rows computed in another place of the batch, relative to the largest number: other kernels, other rounding."""


class BrokenError(Exception):
    """A promise of the contract that this model breaks without an error."""


@dataclass(frozen=True)
class Kept:
    """What was found in a model that keeps the contract: its sites or its features, and what could not be asked."""

    what: tuple[str, ...]
    left_out: int = 0
    notes: tuple[str, ...] = ()


def as_backbone(model: nn.Module) -> Kept:
    """Inject at the default sites with nothing but the one line, and check every promise.

    1. Identity: before training the output equals the model's bit for bit, in eval mode and, with one seed, in train
       mode.
    2. Gradient reaches every unit, and after one step the query, key and value of each.
    3. A row without a source keeps its own output, bit for bit, whatever the other rows hear.
    4. `eject` gives the model back: outputs, state_dict, hooks, `requires_grad`, modes.

    Args:
        model: random weights, eval mode; after a kept contract it is as it was.

    Raises:
        Mi2pError: `inject` refuses the model.
        BrokenError: a promise is not kept.
    """
    awaken(model.eval())
    bare, before = copy.deepcopy(model), _State(model)
    me = inject(model, source_spec=ViewSpec.tokens(SOURCE_WIDTH))
    inputs = real_inputs(bare, me.example)
    source, notes = _words(inputs), []
    plain = _run(bare, inputs)
    first = _run(me, inputs, source=source)
    _promise(_same(first, plain), "identity: the output differs from the model's own before training")
    steps = _reaches(me, first, parts=False)
    with torch.no_grad():  # compared among themselves: some kernels are others where gradients are wanted
        plain = _run(bare, inputs)
        _promise(_same(_run(me, inputs), plain), "identity: without a source the output is not the model's own")
        trained = _run(bare.train(), inputs)
        heard = _run(me.train(), inputs, source=source)
        if not _same(heard, trained):
            before.restore_buffers(bare)
            _promise(not _same(_run(bare, inputs), trained), "identity: in train mode the output differs")
            notes.append("its train mode does not repeat with one seed")
        before.restore_buffers(me.eval().backbone)
        before.restore_buffers(bare.eval())
    _step(steps)
    second = _run(me, inputs, source=source)
    _reaches(me, second, parts=True)
    with torch.no_grad():
        notes += _rows_apart(me, bare, inputs, source, plain)
        sites, left_out = tuple(f"{site.path} {site.layout}" for site in me.sites), len(me.blueprint.left_out)
        me.eject()
        _promise(_same(_run(model, inputs), plain), "eject: the model's output is not what it was")
    before.check(model, values_of=bare)  # which has run as often: some models keep tables for the size they saw last
    return Kept(sites, left_out, tuple(notes))


def as_source(model: nn.Module) -> Kept:
    """Let the model speak to a small network: its features, row by row, frozen, and given back as it was.

    Raises:
        Mi2pError: `inject` refuses the model as a source encoder.
        BrokenError: a promise is not kept.
    """
    pictures, notes = torch.randn(2, 3, 8, 8), []
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    match = find(model)
    if match is not None:
        match = Match(match.adapter, match.path(match.adapter.readout.root))
    bare, before = copy.deepcopy(model), _State(model)
    inner = bare.get_submodule(match.root) if match else bare
    me = inject(net, layers="0", source_encoder=model, example_inputs=pictures)
    inputs = real_inputs(inner, example_inputs_of(model, match, None))
    batch: Any = inputs[1] or inputs[0]
    with torch.no_grad():
        _run(inner, inputs)
    plain = net(pictures)
    seeded()
    features = me.encode(batch)
    _promise(bool(features.data.isfinite().all()), "source: its features hold NaN or infinity")
    first = me(pictures, source=features)
    _promise(_same(first, plain), "identity: the output differs from the backbone's before training")
    _step(_reaches(me, first, parts=False))
    second = me(pictures, source=features)
    _promise(not _same(second, plain), "effect: after a step the source changes nothing")
    _reaches(me, second, parts=True)
    wants = [parameter for parameter in model.parameters() if parameter.grad is not None]
    _promise(not wants, "source: its parameters got gradients")
    seeded()
    turned = me.encode(pytree.tree_map_only(Tensor, lambda tensor: tensor.flip(0), batch))
    if not _close(turned.data.flip(0), features.data):
        seeded()
        one, other = _run(inner, inputs), _run(inner, pytree.tree_map_only(Tensor, lambda t: t.flip(0), inputs))
        apart = all(_close(a, b.flip(0)) for a, b in zip(_floats(one), _floats(other), strict=True))
        _promise(not apart, "source: its features mix the rows of a batch")
        notes.append("its rows depend on their place in the batch")
    spec = str(features.spec)
    me.eject()
    before.check(model, values_of=bare)
    return Kept((spec,), 0, tuple(notes))


def awaken(model: nn.Module) -> None:
    """Random numbers in place of parameters that start (almost) at zero: behind them nothing could be heard."""
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point() and parameter.numel() and parameter.abs().max() < 1e-3:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


def seeded() -> None:
    """One start for whatever draws: torch, the standard library, NumPy."""
    torch.manual_seed(SEED)
    random.seed(SEED)
    try:
        import numpy
    except ModuleNotFoundError:
        return
    numpy.random.seed(SEED)


def _run(model: nn.Module, inputs: Inputs, **more: Any) -> Any:
    seeded()
    args, kwargs = pytree.tree_map_only(Tensor, lambda tensor: tensor.clone(), inputs)
    return model(*args, **kwargs, **more)


def _words(inputs: Inputs) -> SourceFeatures:
    rows = next(leaf.shape[0] for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor) and leaf.dim())
    generator = torch.Generator().manual_seed(SEED)
    return SourceFeatures(torch.randn(rows, SOURCE_LENGTH, SOURCE_WIDTH, generator=generator))


def _step(grads: list[tuple[Tensor, Tensor | None]]) -> None:
    """One step of every unit against its gradient's sign: of one length, however small the gradients are."""
    with torch.no_grad():
        for parameter, grad in grads:
            if grad is not None:
                parameter.sub_(STEP * grad.sign())


def _reaches(me: ExpandedModel, output: Any, parts: bool) -> list[tuple[Tensor, Tensor | None]]:
    """Gradients of the units' parameters, after checking that each unit (and each of its parts) has some."""
    names, parameters = zip(*me.units.named_parameters(), strict=True)
    grads = torch.autograd.grad(_mixture(output), parameters, allow_unused=True)
    by_name = dict(zip(names, grads, strict=True))
    for site in me.sites:
        unit: Unit = me.unit(site.path)
        for part in [name for name, _ in unit.named_children()] if parts else [""]:
            prefix = ".".join(piece for piece in (site.key, part) if piece) + "."
            found = [grad for name, grad in by_name.items() if name.startswith(prefix) and grad is not None]
            _promise(all(bool(grad.isfinite().all()) for grad in found), f"gradient: not finite at {site.path}")
            label = f"the {part} of the unit" if part else "the unit"
            _promise(any(bool(grad.any()) for grad in found), f"gradient: none reaches {label} at {site.path}")
    return list(zip(parameters, grads, strict=True))


def _rows_apart(me: ExpandedModel, model: nn.Module, inputs: Inputs, source: SourceFeatures, plain: Any) -> list[str]:
    """Row 0 hears its source, row 1 has none: nothing may leak through a mixed-up batch axis."""
    mask = torch.zeros(len(source), dtype=torch.bool)
    mask[0] = True
    heard = _run(me, inputs, source=source, source_mask=mask)
    _promise(not _same(heard, plain), "effect: after a step the source changes nothing")
    pairs = list(zip(_floats(heard), _floats(plain), strict=True))
    axes = [_batch_axis(one, len(source)) for one, _ in pairs]
    if all(axis is None for axis in axes):
        return ["no output has a batch axis"]
    leaks = [
        axis is not None and not torch.equal(one.narrow(axis, 1, 1), other.narrow(axis, 1, 1))
        for (one, other), axis in zip(pairs, axes, strict=True)
    ]
    if any(leaks):
        if _rows_mix(model, inputs):
            return ["the model itself lets the rows of a batch hear each other"]
        raise BrokenError("rows: the source of one row reaches another row")
    return []


def _rows_mix(model: nn.Module, inputs: Inputs) -> bool:
    """Whether the bare model's row 1 changes with the content of row 0."""

    def change(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point() or tensor.dim() < 2:
            return tensor
        return torch.cat([tensor[:1] * 2 + 1, tensor[1:]])

    plain, other = _run(model, inputs), _run(model, pytree.tree_map_only(Tensor, change, inputs))
    rows = len(_words(inputs))
    for one, two in zip(_floats(plain), _floats(other), strict=True):
        axis = _batch_axis(one, rows)
        if axis is not None and not torch.equal(one.narrow(axis, 1, 1), two.narrow(axis, 1, 1)):
            return True
    return False


def _batch_axis(tensor: Tensor, rows: int) -> int | None:
    found = [axis for axis, size in enumerate(tensor.shape) if size == rows]
    return found[0] if len(found) == 1 or (found and found[0] == 0) else None


def _floats(output: Any) -> list[Tensor]:
    return [tensor for tensor in tensors_in(output) if tensor.is_floating_point()]


def _mixture(output: Any) -> Tensor:
    """A scalar that depends on each number of an output, on each differently (a plain sum dies behind a norm)."""
    generator = torch.Generator().manual_seed(SEED)
    mixed = [
        (tensor.float() * torch.randn(tensor.shape, generator=generator)).sum()
        for tensor in _floats(output)
        if tensor.requires_grad
    ]
    if not mixed:
        raise BrokenError("gradient: the output carries none")
    return torch.stack(mixed).sum()


def _same(one: Any, other: Any) -> bool:
    """Bit for bit, NaN equal to NaN."""
    ours, theirs = tensors_in(one), tensors_in(other)
    return len(ours) == len(theirs) and all(
        a.shape == b.shape and bool(((a == b) | (a != a) & (b != b)).all()) for a, b in zip(ours, theirs, strict=True)
    )


def _close(one: Tensor, other: Tensor) -> bool:
    scale = float(other.abs().max()) or 1.0
    return one.shape == other.shape and bool(((one - other).abs() <= TOLERANCE * scale).all())


def _promise(kept: bool, which: str) -> None:
    if not kept:
        raise BrokenError(which)


class _State:
    """All that injection must give back, taken before."""

    def __init__(self, model: nn.Module) -> None:
        self.keys = list(model.state_dict())
        self.cls, self.modes = type(model), [module.training for module in model.modules()]
        self.wants = [(id(parameter), parameter.requires_grad) for parameter in model.parameters()]
        self.hooks = _hooks(model)
        self.buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}

    def restore_buffers(self, model: nn.Module) -> None:
        """Undo what a forward in train mode did to running statistics."""
        for name, buffer in model.named_buffers():
            if name in self.buffers and buffer.shape == self.buffers[name].shape:
                buffer.copy_(self.buffers[name])

    def check(self, model: nn.Module, values_of: nn.Module) -> None:
        _promise(type(model) is self.cls, "eject: another class")
        _promise(list(model.state_dict()) == self.keys, "eject: other names in the state_dict")
        _promise(_sums(model) == _sums(values_of), "eject: changed values")
        _promise([module.training for module in model.modules()] == self.modes, "eject: other training modes")
        wants = [(id(parameter), parameter.requires_grad) for parameter in model.parameters()]
        _promise(wants == self.wants, "eject: other parameters, or another requires_grad")
        _promise(_hooks(model) == self.hooks, "eject: hooks stay behind")


def _hooks(model: nn.Module) -> list[list[int]]:
    return [[id(hook) for table in HOOKS for hook in getattr(module, table).values()] for module in model.modules()]


def _sums(model: nn.Module) -> list[str]:
    """A check sum of each parameter and buffer; as text, so that NaN equals NaN."""
    tensors = [*model.parameters(), *model.buffers()]
    return [f"{tensor.double().sum()} {tensor.double().abs().sum()}" for tensor in tensors if not tensor.is_complex()]
