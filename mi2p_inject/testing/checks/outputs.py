"""Checks of what an expanded model gives: the backbone's own output at the start, the source's effect afterwards."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mi2p_inject.core.errors import SiteError
from mi2p_inject.core.inputs import Inputs
from mi2p_inject.expansion.expanded_model import ExpandedModel
from mi2p_inject.expansion.hook import hook_path
from mi2p_inject.sources.features import SourceFeatures
from mi2p_inject.testing.checks.gradients import gradients
from mi2p_inject.testing.compare import difference, samples_equal
from mi2p_inject.testing.inputs import run
from mi2p_inject.testing.randomize import randomize_zero_parameters
from mi2p_inject.testing.snapshot import Buffers
from mi2p_inject.testing.subject import Trial

__all__ = [
    "check_fires",
    "check_identity",
    "check_missing_source",
    "check_units_reach_output",
    "mixes_samples",
    "silenced",
]


def check_identity(trial: Trial) -> None:
    """Before training the output is the backbone's, bit for bit: with and without a source, in eval and train mode."""
    me, bare, inputs = trial.inject(trial.twin()), trial.twin(), trial.inputs
    buffers = Buffers(bare)
    with torch.no_grad():
        first = run(me, inputs, source=trial.source)
        trial.equal(first, run(bare, inputs), "the output differs before training")
    first, plain = run(me, inputs, source=trial.source), run(bare, inputs)
    trial.equal(first, plain, "the output differs before training, where gradients are wanted")
    trial.equal(run(me, inputs), plain, "without a source the output differs")
    try:
        trained = run(bare.train(), inputs)
    except Exception as error:  # labels are missing, or a channel has one value
        trial.note(f"it does not run in train mode on these inputs: {type(error).__name__}")
        return
    output = run(me.train(), inputs, source=trial.source)
    buffers.restore(bare, me.backbone)
    found = difference(output, trained)
    if found and difference(run(bare, inputs), trained):
        trial.note("its train mode does not repeat with one seed")
    elif found:
        trial.equal(output, trained, "in train mode the output differs before training")


def check_fires(trial: Trial) -> None:
    """Each unit runs once in a forward with a source and never without one; a site that does not fire raises."""
    me = trial.expand()
    calls: dict[str, int] = dict.fromkeys((site.path for site in me.sites), 0)

    def count(path: str) -> None:
        calls[path] += 1

    for site in me.sites:
        me.unit(site.path).register_forward_hook(lambda *_, path=site.path: count(path))
    with torch.no_grad():
        for source, times in ((trial.source, 1), (None, 0)):
            run(me, trial.inputs, source=source)
            for path, seen in calls.items():
                trial.require(
                    seen == times,
                    f"the unit does not run {times} times in a forward {'with' if source else 'without'} a source",
                    path=path,
                    expected=f"{times}",
                    given=f"{seen}",
                )
            calls.update(dict.fromkeys(calls, 0))
        for site in me.sites:
            hooked = me.backbone.get_submodule(hook_path(me.backbone, site.path))
            with _without_hooks(hooked):
                _must_raise(trial, me, site.path)


def check_units_reach_output(trial: Trial) -> None:
    """Each unit by itself, once it is not zero, changes the output."""
    me, bare = trial.expand(), trial.twin()
    randomize_zero_parameters(me.units, strength=1.0)
    with torch.no_grad():
        plain = run(bare, trial.inputs)
        for site in me.sites:
            others = [me.unit(other.path) for other in me.sites if other != site]
            with silenced(*others):
                output = run(me, trial.inputs, source=trial.source)
            trial.differ(output, plain, "this unit alone changes nothing of the output", path=site.path)


def check_missing_source(trial: Trial) -> None:
    """Without a source, and in each sample whose source is missing, the output is the backbone's, bit for bit.

    Missing is: `source=None`, a sample with False in `source_mask`, whatever its features hold, and a sample all of
    whose tokens are padding. The other samples are as they are where no source is missing, and gradients are finite.
    """
    me, bare, inputs, batch = trial.expand(), trial.twin(), trial.inputs, trial.subject.batch
    randomize_zero_parameters(me.units, strength=1.0)
    there = torch.arange(batch) % 2 == 0
    absent, present = [list(map(int, rows.nonzero().flatten())) for rows in (~there, there)]
    with torch.no_grad():
        plain = run(bare, inputs)
        trial.equal(run(me, inputs), plain, "without a source the output differs")
        mask = there.to(trial.source.data.device)
        mixed = run(me, inputs, source=trial.source, source_mask=mask)
        full = run(me, inputs, source=trial.source)
        trial.differ(mixed, plain, "the source of some samples changes nothing")
        kept = samples_equal(mixed, plain, absent, batch)
        if kept is None:
            trial.note("no output has a batch axis")
            return
        if not kept and mixes_samples(bare, inputs, plain, batch):
            trial.note("the model itself mixes the samples of a batch")
            return
        where = f"samples {absent} of {batch}"
        trial.require(
            kept,
            "the source of one sample reaches another one",
            expected=f"the backbone's own output in {where}, whose source is missing",
            given="another one",
            fix="the layout takes another axis for the batch, or the unit ignores source.rows",
        )
        for sample in present:
            trial.require(
                samples_equal(mixed, full, [sample], batch) and not samples_equal(mixed, plain, [sample], batch),
                "a sample with a source differs from what it is where no source is missing",
                expected=f"the same output in sample {sample}, and not the backbone's",
                given="another one, or the backbone's",
            )
        for what, source, rows in _ways_to_be_missing(trial.source, mask):
            output = run(me, inputs, source=source, source_mask=rows)
            trial.require(
                samples_equal(output, plain, absent, batch),
                f"{what} changes its sample",
                expected=f"the backbone's own output in {where}",
                given="another one",
            )
    _, damaged, rows = _ways_to_be_missing(trial.source, mask)[0]
    gradients(trial, me, run(me, inputs, source=damaged, source_mask=rows), each_parameter=False)


@contextmanager
def silenced(*units: nn.Module) -> Iterator[None]:
    """Units whose residual is zero, whatever their parameters are."""
    handles = [unit.register_forward_hook(lambda module, args, output: torch.zeros_like(output)) for unit in units]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _without_hooks(module: nn.Module) -> Iterator[None]:
    """A module whose forward hooks something has silently switched off."""
    hooks = dict(module._forward_hooks)
    module._forward_hooks.clear()
    try:
        yield
    finally:
        module._forward_hooks.update(hooks)


def _must_raise(trial: Trial, me: ExpandedModel, path: str) -> None:
    try:
        run(me, trial.inputs, source=trial.source)
    except SiteError as error:
        trial.require(
            error.path == path,
            "the error about a site that did not fire names another one",
            path=path,
            expected=path,
            given=error.path,
        )
        return
    trial.require(False, "a site that does not fire goes unnoticed", path=path, expected="SiteError", given="an output")


def _ways_to_be_missing(source: SourceFeatures, there: Tensor) -> list[tuple[str, SourceFeatures, Tensor | None]]:
    shape = [-1] + [1] * (source.data.dim() - 1)
    damaged = source.data.masked_fill(~there.view(shape), math.nan)
    ways: list[tuple[str, SourceFeatures, Tensor | None]] = [
        ("NaN in a missing source", SourceFeatures(damaged, source.mask), there)
    ]
    if source.mask is not None:
        ways.append(("a source of padding alone", SourceFeatures(source.data, source.mask & there[:, None]), None))
    return ways


def mixes_samples(bare: nn.Module, inputs: Inputs, plain: object, batch: int) -> bool:
    """Whether another first sample changes what the model itself gives for the others."""

    def other(tensor: Tensor) -> Tensor:
        if not tensor.dim() or tensor.shape[0] != batch:
            return tensor
        first = tensor[:1] * 2 + 1 if tensor.is_floating_point() else tensor[:1].flip(-1)
        return torch.cat([first, tensor[1:]])

    changed: Inputs = pytree.tree_map_only(Tensor, other, inputs)
    return not samples_equal(run(bare, changed), plain, list(range(1, batch)), batch)
