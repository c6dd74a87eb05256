"""Each check can fail: the library, a unit or a model is broken on purpose, and the check that must notice does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mutate_backbone
import mutate_several
import mutate_source
import pytest
import torch
from broken import IDS, PICTURES, Encoder, Network

from mi2p_inject import ViewSpec
from mi2p_inject.core.errors import SiteError
from mi2p_inject.expansion.hook import SiteHook
from mi2p_inject.testing import Check, ContractError, LateError, check_model, iter_checks

Mutation = Callable[[pytest.MonkeyPatch], dict[str, Any]]

MUTATIONS: list[tuple[str, Mutation, str]] = [
    ("backbone-identity", mutate_backbone.starts_at_full_strength, "differs before training"),
    ("backbone-identity", mutate_backbone.dropout_stays_off, "train mode"),
    ("backbone-identity", mutate_backbone.another_output_without_a_source, "without a source"),
    ("backbone-fires", mutate_backbone.silent_sites_go_unnoticed, "goes unnoticed"),
    ("backbone-fires", mutate_backbone.hook_runs_the_unit_twice, "does not run 1 times"),
    ("backbone-fires", mutate_backbone.units_run_without_a_source, "does not run 0 times"),
    ("backbone-gradients", mutate_backbone.residual_is_dropped, "no gradient"),
    ("backbone-gradients", mutate_backbone.one_parameter_is_cut_off, "unused"),
    ("backbone-gradients", mutate_backbone.gradient_is_not_finite, "not finite"),
    ("backbone-units_reach_output", mutate_backbone.unit_is_always_zero, "second.*changes nothing"),
    ("backbone-missing_source", mutate_backbone.another_output_without_a_source, "without a source"),
    ("backbone-missing_source", mutate_backbone.mask_is_ignored, "reaches another"),
    ("backbone-missing_source", mutate_backbone.unit_ignores_missing_samples, "reaches another"),
    ("backbone-missing_source", mutate_backbone.padding_is_read, "padding alone"),
    ("backbone-missing_source", mutate_backbone.missing_features_are_read, "not finite"),
    ("backbone-missing_source", mutate_backbone.residual_of_another_sample, "reaches another"),
    ("backbone-missing_source", mutate_backbone.layout_takes_length_for_batch, "reaches another"),
    ("backbone-padding", mutate_backbone.unit_counts_padding, "padding changes"),
    ("backbone-padding", mutate_backbone.padding_is_read, "padding changes"),
    ("backbone-several_sources", mutate_backbone.starts_at_full_strength, "differs before training"),
    ("backbone-several_sources", mutate_backbone.residual_is_dropped, "alone changes nothing"),
    ("backbone-several_sources", mutate_backbone.mask_is_ignored, "a mask of False"),
    ("backbone-several_sources", mutate_several.only_the_last_source_adds, "the other one changes nothing"),
    ("backbone-several_sources", mutate_several.sources_share_their_units, "add nothing change the output"),
    ("backbone-several_sources", mutate_several.a_missing_source_is_the_other_one, "add nothing change the output"),
    ("backbone-several_sources", mutate_several.a_mask_is_of_all_sources, "a mask of False"),
    ("backbone-several_sources", mutate_several.a_mask_is_of_other_rows, "missing in some samples"),
    ("backbone-eject", mutate_backbone.eject_keeps_the_hooks, "hooks"),
    ("backbone-eject", mutate_backbone.nothing_is_restored, "training modes"),
    ("backbone-eject", mutate_backbone.inject_leaves_an_attribute, "attributes"),
    ("backbone-eject", mutate_backbone.eject_changes_a_value, "values of first.weight"),
    ("backbone-exception", mutate_backbone.source_stays_after_an_exception, "after an exception|after inject"),
    ("backbone-exception", mutate_backbone.exceptions_are_swallowed, "does not arrive"),
    ("backbone-threads", mutate_backbone.threads_share_a_call, "threads"),
    ("backbone-two_models", mutate_backbone.models_share_a_call, "two_models"),
    ("backbone-copies", mutate_backbone.copies_keep_the_units, "its own units"),
    ("backbone-copies", mutate_backbone.copies_share_the_backbone, "shares tensors"),
    ("backbone-checkpoint", mutate_backbone.units_are_not_saved, "loaded checkpoint"),
    ("backbone-checkpoint", mutate_backbone.backbone_is_not_saved, "loaded checkpoint"),
    ("source-training", mutate_source.source_starts_at_full_strength, "differs before training"),
    ("source-training", mutate_source.features_are_constant, "no gradient"),
    ("source-frozen", mutate_source.source_is_encoded_twice, "source once"),
    ("source-frozen", mutate_source.encode_leaves_modes_alone, "in train mode changes the features"),
    ("source-frozen", mutate_source.encoder_stays_in_train_mode, "not in eval mode"),
    ("source-frozen", mutate_source.encoder_trains, "get gradients"),
    ("source-frozen", mutate_source.encoder_is_saved_too, "in the state_dict"),
    ("source-features", mutate_source.features_mix_samples, "depend on the others"),
    ("source-features", mutate_source.features_hold_nan, "NaN"),
    ("source-features", mutate_source.a_sample_is_all_padding, "without tokens"),
    ("source-features", mutate_source.features_of_fewer_samples, "another batch"),
    ("source-given_back", mutate_source.encoder_is_not_given_back, "training modes"),
    ("source-given_back", mutate_backbone.nothing_is_restored, "training modes"),
]


def run(check: str, options: dict[str, Any]) -> None:
    role, name = check.split("-")
    usual: dict[str, Any] = {"model": Network(), "layers": ["first", "second"], "example_inputs": PICTURES}
    usual |= {"source_spec": ViewSpec.tokens(12)}
    if role == "source":
        usual = {"model": Encoder(), "example_inputs": IDS}
    check_model(as_backbone=role == "backbone", as_source=role == "source", checks=[name], **{**usual, **options})


@pytest.fixture(autouse=True)
def fixed_weights() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("check", iter_checks(), ids=str)
def test_nothing_is_wrong_without_a_mutation(check: Check) -> None:
    run(str(check), {})


@pytest.mark.parametrize(("check", "mutation", "says"), MUTATIONS, ids=[f"{c}-{m.__name__}" for c, m, _ in MUTATIONS])
def test_a_check_notices(check: str, mutation: Mutation, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ContractError, match=says) as caught:
        run(check, mutation(monkeypatch))
    assert caught.value.check == check.split("-")[1]
    for part in ("expected: ", "given: ", "fix: "):
        assert part in str(caught.value)


def test_every_check_has_a_mutation() -> None:
    assert {check for check, _, _ in MUTATIONS} == {str(check) for check in iter_checks()}


def test_an_error_after_injection_comes_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SiteHook, "__call__", lambda *args: None)
    with pytest.raises(LateError, match="SiteError") as caught:
        run("backbone-identity", {})
    assert isinstance(caught.value.__cause__, SiteError)
