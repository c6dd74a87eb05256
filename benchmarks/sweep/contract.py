"""The contract, checked on one real model: as a backbone and as a source encoder.

A refusal at `inject` time is a fine answer; a model that is taken must keep every promise. `BrokenError` names the one
that was not kept: the one outcome that must never happen.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from benchmarks.sweep.compare import BrokenError, Buffers, State, close, floats, promise, same, second_rows_differ
from benchmarks.sweep.feed import randomize_zero_parameters, real_inputs, run, seeded
from mi2p_inject.core.errors import Mi2pError
from mi2p_inject.core.inputs import Inputs
from mi2p_inject.core.views import ViewSpec
from mi2p_inject.expansion.expanded_model import ExpandedModel
from mi2p_inject.expansion.inject import inject
from mi2p_inject.inspection.resolve import resolve
from mi2p_inject.sources.features import SourceFeatures

SOURCE_WIDTH, SOURCE_LENGTH, STEP = 12, 5, 0.01


class LateError(Exception):
    """An error of ours that came after `inject` had taken the model: loud, but too late."""


@dataclass(frozen=True)
class Kept:
    """What was found in a model that keeps the contract: its sites or its features, and what could not be asked."""

    what: tuple[str, ...]
    left_out: int = 0
    notes: tuple[str, ...] = ()


def as_backbone(model: nn.Module) -> Kept:
    """Inject at the default sites with nothing but the one line, and check every promise.

    1. Identity: before training the output equals the model's bit for bit, with and without a source, in eval mode
       and, with one seed, in train mode.
    2. Gradient reaches every unit, and after one step the query, key and value of each.
    3. A row without a source keeps its own output, bit for bit, while another row hears its source.
    4. `eject` gives the model back: outputs, state_dict, hooks, `requires_grad`, modes.

    Args:
        model: random weights; parameters that start at zero get others (`randomize_zero_parameters`).

    Raises:
        Mi2pError: `inject` refuses the model.
        BrokenError: a promise is not kept.
        LateError: an error of ours after `inject`.
    """
    inputs = real_inputs(model.eval(), resolve(model).inputs)
    randomize_zero_parameters(model, inputs)
    bare, before = copy.deepcopy(model), State(model)
    me = inject(model, source_spec=ViewSpec.tokens(SOURCE_WIDTH))
    with _taken():
        notes = _check_hears(me, bare, inputs)
        kept = Kept(
            tuple(f"{site.path} {site.layout}" for site in me.sites), len(me.expansion_config.left_out), tuple(notes)
        )
        me.eject()
        promise(same(run(model, inputs), run(bare, inputs)), "eject: the model's output is not what it was")
        before.check(model, values_of=bare)  # some models keep tables for the size they saw last; so does the copy
    return kept


def as_source(model: nn.Module) -> Kept:
    """Let the model speak to a small network: its features, row by row, frozen, and given back as it was.

    Raises:
        Mi2pError: `inject` refuses the model as a source encoder.
        BrokenError: a promise is not kept.
        LateError: an error of ours after `inject`.
    """
    pictures = torch.randn(2, 3, 8, 8)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    resolved = resolve(model, as_source=True)
    randomize_zero_parameters(model.eval(), real_inputs(model, resolve(model).inputs))
    bare, before = copy.deepcopy(model), State(model)
    inner = bare.get_submodule(resolved.match.root) if resolved.match else bare
    me = inject(net, layers="0", source_encoder=model, example_inputs=pictures)
    inputs = real_inputs(inner, resolved.inputs)
    with _taken():
        notes, spec = _check_speaks(me, inner, inputs, pictures)
        wants = [parameter for parameter in model.parameters() if parameter.grad is not None]
        promise(not wants, "source: its parameters got gradients")
        me.eject()
        before.check(model, values_of=bare)
    return Kept((spec,), 0, tuple(notes))


@contextmanager
def _taken() -> Iterator[None]:
    """From here on an error of ours comes too late."""
    try:
        yield
    except Mi2pError as error:
        raise LateError(f"{type(error).__name__}: {error}") from error


def _check_hears(me: ExpandedModel, bare: nn.Module, inputs: Inputs) -> list[str]:
    """Promises 1 to 3; gives what could not be asked.

    Model and copy do the same things in the same order: some models keep tables from one forward to the next, and some
    kernels are others where gradients are wanted.
    """
    source, buffers = _words(inputs), Buffers(bare)
    with torch.no_grad():
        promise(same(run(me, inputs, source=source), run(bare, inputs)), "identity: the output differs before training")
    first, plain = run(me, inputs, source=source), run(bare, inputs)
    promise(same(first, plain), "identity: the output differs before training, where gradients are wanted")
    promise(same(run(me, inputs), plain), "identity: without a source the output is not the model's own")
    steps = _reaches(me, first, parts=False)
    notes = _check_train_mode(me, bare, inputs, source, buffers)
    _step(steps)
    _reaches(me, run(me, inputs, source=source), parts=True)
    return notes + _check_rows(me, bare, inputs, source)


@torch.no_grad()
def _check_train_mode(
    me: ExpandedModel, bare: nn.Module, inputs: Inputs, source: SourceFeatures, buffers: Buffers
) -> list[str]:
    notes = []
    try:
        trained = run(bare.train(), inputs)
    except Exception as error:  # labels missing, one value a channel
        bare.eval()
        return [f"it does not run in train mode on these inputs: {type(error).__name__}"]
    heard = run(me.train(), inputs, source=source)
    buffers.restore(bare, me.backbone)
    if not same(heard, trained):
        promise(not same(run(bare, inputs), trained), "identity: in train mode the output differs from the model's own")
        buffers.restore(bare)
        notes.append("its train mode does not repeat with one seed")
    bare.eval()
    me.eval()
    return notes


def _check_rows(me: ExpandedModel, bare: nn.Module, inputs: Inputs, source: SourceFeatures) -> list[str]:
    """Row 0 hears its source, row 1 has none: nothing may leak through a mixed-up batch axis."""
    mask = torch.zeros(len(source), dtype=torch.bool)
    mask[0] = True
    plain, heard = run(bare, inputs), run(me, inputs, source=source, source_mask=mask)
    promise(not same(heard, plain), "effect: after a step the source changes nothing")
    leaks = second_rows_differ(heard, plain, len(source))
    if leaks is None:
        return ["no output has a batch axis"]
    if not leaks:
        return []
    changed = pytree.tree_map_only(Tensor, _other_first_row, inputs)
    promise(
        bool(second_rows_differ(run(bare, changed), plain, len(source))),
        "rows: the source of one row reaches another row",
    )
    return ["the model itself lets the rows of a batch hear each other"]


def _other_first_row(tensor: Tensor) -> Tensor:
    if not tensor.dim():
        return tensor
    if tensor.is_floating_point():
        return torch.cat([tensor[:1] * 2 + 1, tensor[1:]])
    return torch.cat([tensor[:1].flip(-1), tensor[1:]])


def _check_speaks(me: ExpandedModel, inner: nn.Module, inputs: Inputs, pictures: Tensor) -> tuple[list[str], str]:
    """A source's own promises; gives what could not be asked, and what its features are."""
    batch: Any = inputs[1] or inputs[0]
    flipped: Any = pytree.tree_map_only(Tensor, lambda tensor: tensor.flip(0), inputs)
    with torch.no_grad():
        run(inner, inputs)
    seeded()
    features = me.encode(batch)
    promise(bool(features.data.isfinite().all()), "source: its features hold NaN or infinity")
    plain, first = me.backbone(pictures), me(pictures, source=features)
    promise(same(first, plain), "identity: the output differs from the backbone's before training")
    _step(_reaches(me, first, parts=False))
    second = me(pictures, source=features)
    promise(not same(second, plain), "effect: after a step the source changes nothing")
    _reaches(me, second, parts=True)
    seeded()
    turned = me.encode(flipped[1] or flipped[0])
    if close(turned.data.flip(0), features.data):
        return [], str(features.spec)
    with torch.no_grad():
        pairs = zip(floats(run(inner, inputs)), floats(run(inner, flipped)), strict=True)
        promise(not all(close(a, b.flip(0)) for a, b in pairs), "source: its features mix the rows of a batch")
    return ["its rows depend on their place in the batch"], str(features.spec)


def _words(inputs: Inputs) -> SourceFeatures:
    rows = next(leaf.shape[0] for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor) and leaf.dim())
    generator = torch.Generator().manual_seed(0)
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
        for part in [name for name, _ in me.unit(site.path).named_children()] if parts else [""]:
            prefix = ".".join(piece for piece in (site.key, part) if piece) + "."
            found = [grad for name, grad in by_name.items() if name.startswith(prefix) and grad is not None]
            promise(all(bool(grad.isfinite().all()) for grad in found), f"gradient: not finite at {site.path}")
            label = f"the {part} of the unit" if part else "the unit"
            promise(any(bool(grad.any()) for grad in found), f"gradient: none reaches {label} at {site.path}")
    return list(zip(parameters, grads, strict=True))


def _mixture(output: Any) -> Tensor:
    """A scalar that depends on each number of an output, on each differently (a plain sum dies behind a norm)."""
    generator = torch.Generator().manual_seed(0)
    mixed = [
        (tensor.float() * torch.randn(tensor.shape, generator=generator)).sum()
        for tensor in floats(output)
        if tensor.requires_grad
    ]
    if not mixed:
        raise BrokenError("gradient: the output carries none")
    return torch.stack(mixed).sum()
