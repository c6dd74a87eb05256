"""Check of two named sources over one backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from mi2p_inject.expansion.expanded_model import ExpandedModel
from mi2p_inject.sources.features import SourceFeatures
from mi2p_inject.testing.checks.outputs import mixes_samples, silenced
from mi2p_inject.testing.compare import samples_equal
from mi2p_inject.testing.inputs import run
from mi2p_inject.testing.randomize import randomize_zero_parameters
from mi2p_inject.testing.subject import Trial

__all__ = ["check_several_sources"]

ONE, OTHER = "one", "other"


def check_several_sources(trial: Trial) -> None:
    """Two named sources have units of their own, whose residuals add; each may be missing by itself.

    Before training the output is the backbone's, bit for bit. A source that is missing, in the batch or in one sample,
    leaves there what the other one gives, bit for bit; and units that add nothing leave it as well.
    """
    me, bare = trial.expand(names=(ONE, OTHER)), trial.twin()
    one, other = trial.features(seed=0), trial.features(seed=1)
    with torch.no_grad():
        plain = run(bare, trial.inputs)
        both = run(me, trial.inputs, source={ONE: one, OTHER: other})
        trial.equal(both, plain, "with two sources the output differs before training")
        randomize_zero_parameters(me.units, strength=1.0)
        alone = {name: run(me, trial.inputs, source={name: given}) for name, given in ((ONE, one), (OTHER, other))}
        both = run(me, trial.inputs, source={ONE: one, OTHER: other})
        for name, output in alone.items():
            trial.differ(output, plain, f"the source {name!r} alone changes nothing")
            trial.differ(both, output, f"beside the source {name!r} the other one changes nothing")
        units = {name: [me.unit(site.path, name) for site in me.sites] for name in (ONE, OTHER)}
        for name, kept in ((ONE, OTHER), (OTHER, ONE)):
            with silenced(*units[name]):
                quiet = run(me, trial.inputs, source={ONE: one, OTHER: other})
            trial.equal(quiet, alone[kept], f"units of {name!r} that add nothing change the output", "the other alone")
        _check_missing(trial, me, {ONE: one, OTHER: other}, alone, both, plain)


def _check_missing(
    trial: Trial,
    me: ExpandedModel,
    given: Mapping[str, SourceFeatures],
    alone: Mapping[str, Any],
    both: Any,
    plain: Any,
) -> None:
    batch = trial.subject.batch
    there = torch.arange(batch, device=given[ONE].data.device) % 2 == 0
    absent, present = [list(map(int, rows.nonzero().flatten())) for rows in (~there, there)]
    for name, kept in ((ONE, OTHER), (OTHER, ONE)):
        none = torch.zeros_like(there)
        ways: list[tuple[str, Any, Any]] = [
            ("None", {**given, name: None}, None),
            ("a mask of False", given, {name: none}),
        ]
        for what, source, mask in ways:
            output = run(me, trial.inputs, source=source, source_mask=mask)
            trial.equal(output, alone[kept], f"a source that is missing ({what}) changes the output", "the other alone")
        mixed = run(me, trial.inputs, source=given, source_mask={name: there})
        kept_rows = samples_equal(mixed, alone[kept], absent, batch)
        others = samples_equal(mixed, both, present, batch)
        if kept_rows is None:
            trial.note("no output has a batch axis")
            return
        if not (kept_rows and others) and mixes_samples(trial.twin(), trial.inputs, plain, batch):
            trial.note("the model itself mixes the samples of a batch")
            return
        trial.require(
            kept_rows and others,
            f"the source {name!r}, missing in some samples, changes them, or others",
            expected=f"in samples {absent} what the other source gives alone, in {present} what both give",
            given="another output",
        )
