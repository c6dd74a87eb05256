"""What is broken on purpose where a model is the backbone: each gives options of `check_model`, or patches."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from broken import GENERATOR, GlobalCalls, LengthFirst, SharedCalls, StickyCalls, Wrapped
from torch import nn

from mi2p_inject import ExpandedModel, Layout, SourceFeatures
from mi2p_inject.core.shared_state import Record
from mi2p_inject.expansion import expanded_model, running
from mi2p_inject.expansion.hook import SiteHook
from mi2p_inject.sources.prepared import PreparedSource

Patch = pytest.MonkeyPatch


def starts_at_full_strength(patch: Patch) -> dict[str, Any]:
    return {"zero_init": None}


def dropout_stays_off(patch: Patch) -> dict[str, Any]:
    def train(me: ExpandedModel, mode: bool = True) -> ExpandedModel:
        me.backbone.eval()
        return me

    patch.setattr(ExpandedModel, "train", train)
    return {}


def another_output_without_a_source(patch: Patch) -> dict[str, Any]:
    run = ExpandedModel._run

    def nudged(me: ExpandedModel, function: Any, args: Any, kwargs: Any, source: Any, mask: Any, once: bool) -> Any:
        output = run(me, function, args, kwargs, source, mask, once=once)
        return output + 1e-6 if source is None else output

    patch.setattr(ExpandedModel, "_run", nudged)
    return {}


def units_run_without_a_source(patch: Patch) -> dict[str, Any]:
    run = ExpandedModel._run

    def always(me: ExpandedModel, function: Any, args: Any, kwargs: Any, source: Any, mask: Any, once: bool) -> Any:
        given = SourceFeatures(torch.ones(len(args[0]), 2, 12)) if source is None else source
        return run(me, function, args, kwargs, given, mask, once=once)

    patch.setattr(ExpandedModel, "_run", always)
    return {}


def silent_sites_go_unnoticed(patch: Patch) -> dict[str, Any]:
    patch.setattr(running, "check_fired", lambda *args: None)
    return {}


def hook_runs_the_unit_twice(patch: Patch) -> dict[str, Any]:
    add = SiteHook._add

    def twice(site: SiteHook, *given: Any) -> Any:
        add(site, *given)
        return add(site, *given)

    patch.setattr(SiteHook, "_add", twice)
    return {}


def residual_is_dropped(patch: Patch) -> dict[str, Any]:
    fired = SiteHook.__call__

    def ignore(site: SiteHook, module: nn.Module, args: Any, output: Any) -> Any:
        fired(site, module, args, output)

    patch.setattr(SiteHook, "__call__", ignore)
    return {}


def one_parameter_is_cut_off(patch: Patch) -> dict[str, Any]:
    return {"unit": Wrapped("an unused parameter")}


def gradient_is_not_finite(patch: Patch) -> dict[str, Any]:
    return {"unit": Wrapped("an infinite gradient")}


def unit_is_always_zero(patch: Patch) -> dict[str, Any]:
    return {"unit": Wrapped("always zero on small maps")}


def mask_is_ignored(patch: Patch) -> dict[str, Any]:
    run = ExpandedModel._run

    def unmasked(me: ExpandedModel, function: Any, args: Any, kwargs: Any, source: Any, mask: Any, once: bool) -> Any:
        return run(me, function, args, kwargs, source, None, once=once)

    patch.setattr(ExpandedModel, "_run", unmasked)
    return {}


def unit_ignores_missing_samples(patch: Patch) -> dict[str, Any]:
    return {"unit": Wrapped("missing samples")}


def padding_is_read(patch: Patch) -> dict[str, Any]:
    prepare = running.prepare

    def without_mask(features: SourceFeatures, *more: Any, **others: Any) -> PreparedSource:
        return prepare(SourceFeatures(features.data), *more, **others)

    patch.setattr(running, "prepare", without_mask)
    return {}


def unit_counts_padding(patch: Patch) -> dict[str, Any]:
    return {"unit": Wrapped("padding")}


def missing_features_are_read(patch: Patch) -> dict[str, Any]:
    prepare = running.prepare

    def with_nan(features: SourceFeatures, *more: Any, **others: Any) -> PreparedSource:
        prepared = prepare(features, *more, **others)
        if features.data.isnan().any():
            prepared.tokens = features.data
        return prepared

    patch.setattr(running, "prepare", with_nan)
    return {}


def residual_of_another_sample(patch: Patch) -> dict[str, Any]:
    return {"unit": Wrapped("another sample")}


def layout_takes_length_for_batch(patch: Patch) -> dict[str, Any]:
    x = torch.randn(3, 3, 4, generator=GENERATOR)
    return {"model": LengthFirst(), "layers": "layer", "layout": Layout("NLC"), "example_inputs": x}


def eject_keeps_the_hooks(patch: Patch) -> dict[str, Any]:
    patch.setattr(ExpandedModel, "eject", lambda me: me.backbone)
    return {}


def nothing_is_restored(patch: Patch) -> dict[str, Any]:
    patch.setattr(Record, "restore_modes", lambda *args: None)
    patch.setattr(Record, "restore_flags", lambda *args: None)
    return {}


def inject_leaves_an_attribute(patch: Patch) -> dict[str, Any]:
    register = expanded_model._register

    def marked(backbone: nn.Module, site: SiteHook) -> Any:
        backbone.marker = True  # type: ignore[assignment]
        return register(backbone, site)

    patch.setattr(expanded_model, "_register", marked)
    return {}


def eject_changes_a_value(patch: Patch) -> dict[str, Any]:
    eject = ExpandedModel.eject

    def nudge(me: ExpandedModel) -> nn.Module:
        with torch.no_grad():
            next(me.backbone.parameters()).flatten()[0].add_(1e-6)
        return eject(me)

    patch.setattr(ExpandedModel, "eject", nudge)
    return {}


def source_stays_after_an_exception(patch: Patch) -> dict[str, Any]:
    patch.setattr(expanded_model, "Calls", StickyCalls)
    return {}


def exceptions_are_swallowed(patch: Patch) -> dict[str, Any]:
    run = ExpandedModel._run

    def quiet(me: ExpandedModel, *args: Any, **kwargs: Any) -> Any:
        try:
            return run(me, *args, **kwargs)
        except Exception:
            return None

    patch.setattr(ExpandedModel, "_run", quiet)
    return {}


def threads_share_a_call(patch: Patch) -> dict[str, Any]:
    patch.setattr(expanded_model, "Calls", SharedCalls)
    return {}


def models_share_a_call(patch: Patch) -> dict[str, Any]:
    patch.setattr(expanded_model, "Calls", GlobalCalls)
    return {}


def copies_keep_the_units(patch: Patch) -> dict[str, Any]:
    real, first = running.Call, list[nn.Module]()

    def of_the_first(source: PreparedSource, units: nn.Module, *more: Any, **others: Any) -> Any:
        first.append(units)
        return real(source, first[0], *more, **others)  # type: ignore[arg-type]

    patch.setattr(running, "Call", of_the_first)
    return {}


def copies_share_the_backbone(patch: Patch) -> dict[str, Any]:
    def copied(me: ExpandedModel, memo: dict[int, Any]) -> ExpandedModel:
        return me

    patch.setattr(ExpandedModel, "__deepcopy__", copied, raising=False)
    return {}


def units_are_not_saved(patch: Patch) -> dict[str, Any]:
    save = ExpandedModel.save_pretrained

    def forget(me: ExpandedModel, folder: Any) -> None:
        other = copy.deepcopy(me)
        nn.init.zeros_(next(other.units.parameters()))
        save(other, folder)

    patch.setattr(ExpandedModel, "save_pretrained", forget)
    return {}


def backbone_is_not_saved(patch: Patch) -> dict[str, Any]:
    save = ExpandedModel.save_pretrained

    def forget(me: ExpandedModel, folder: Any) -> None:
        other = copy.deepcopy(me)
        with torch.no_grad():
            next(other.backbone.parameters()).sub_(0.01)
        save(other, folder)

    patch.setattr(ExpandedModel, "save_pretrained", forget)
    return {}
