"""The dry runs of a pair of encoders happen once in a process, and what they found holds for that pair alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from built_systems import batch, built

from mi2p_inject import ExpandedModel
from mi2p_inject.recipes.systems import expand as expanding
from mi2p_inject.recipes.systems.expand import _PLANS

OTHERS: list[dict[str, Any]] = [
    {"vision": "tiny:resnet"},
    {"text": "tiny:bert"},
    {"vision_layers": [0]},
    {"unit": "mi2p-paper"},
    {"unit_options": {"readout": 4}},
    {"trainable": "units"},
]


@pytest.fixture
def dry_runs(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Of this test, in a process that has built nothing yet."""
    counted: list[object] = []
    inject = expanding.inject

    def counting(*given: Any, **more: Any) -> ExpandedModel:
        counted.append(given)
        return inject(*given, **more)

    monkeypatch.setattr(expanding, "inject", counting)
    monkeypatch.setattr(expanding, "_PLANS", type(_PLANS)())
    return counted


@pytest.mark.parametrize("model", ["me-vision", "me-fusion"])
def test_the_second_model_is_the_first_again(model: str, dry_runs: list[object]) -> None:
    first = built(model).eval()
    count = len(dry_runs)
    second = built(model).eval()
    assert len(dry_runs) == count == len(first.sources())
    assert str(second) == str(first)
    for branch, other in zip(first.modules(), second.modules(), strict=True):
        if isinstance(branch, ExpandedModel) and isinstance(other, ExpandedModel):
            assert other.expansion_config == branch.expansion_config
            assert str(other.summary()) == str(branch.summary())
    values = second.state_dict()
    assert all(torch.equal(value, values[name]) for name, value in first.state_dict().items())
    whole = batch(first, [True, True, False], [True, False, True])
    with torch.no_grad():
        assert torch.equal(second(**whole)["logits"], first(**whole)["logits"])


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_another_pair_or_other_units_are_run_dry_anew(other: dict[str, Any], dry_runs: list[object]) -> None:
    built("me-vision")
    built("me-vision", **other)
    assert len(dry_runs) == 2


def test_a_model_without_weights_does_not_plan_for_one_with_weights(dry_runs: list[object]) -> None:
    """A table first builds all its models on the meta device, where less is known of them."""
    built("me-vision", device="meta")
    built("me-vision")
    assert len(dry_runs) == 2
