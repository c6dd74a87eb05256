"""`check_model` as its users call it: third parties with an adapter, a unit or a model of their own."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

import pytest
import torch
from broken import IDS, PICTURES, Encoder, Network
from helpers import complains
from models import TINY
from torch import Tensor, nn

from mi2p_inject import ViewSpec
from mi2p_inject.core.errors import Mi2pError, ProbeError
from mi2p_inject.testing import CheckError, ContractError, check_model, iter_checks, prepare
from mi2p_inject.units import UNITS

WORDS = ViewSpec.tokens(12)


def test_report_says_what_was_checked() -> None:
    names = ["identity", "gradients", "features"]
    report = check_model(TINY["resnet"].build(), checks=names)
    assert [result.name for result in report.results] == names
    assert report.found("backbone") == ("layer1 NCHW", "layer2 NCHW", "layer3 NCHW", "layer4 NCHW")
    assert report.found("source")[0].startswith("map (B, 24")
    assert not report.notes
    for words in ("ResNet: 3 checks", "as backbone: identity, gradients", "layer4 NCHW", "as source: features"):
        assert words in str(report)


def test_what_cannot_be_asked_is_noted() -> None:
    class Random(Network):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = super().forward(x)
            return out + len(Random.calls) if self.training and not Random.calls.append(1) else out

        calls: list[int] = []  # noqa: RUF012

    report = check_model(
        Random(), layers="first", source_spec=WORDS, example_inputs=PICTURES, checks=["identity"], as_source=False
    )
    assert report.notes == ("its train mode does not repeat with one seed",)
    assert "not checked: its train mode" in str(report)


def test_a_unit_by_options_of_inject() -> None:
    report = check_model(
        Network(),
        as_source=False,
        example_inputs=PICTURES,
        layers="second",
        unit="mi2p-paper",
        source_spec=ViewSpec.map(10, 3, 4),
        checks=["identity", "missing_source"],
    )
    assert report.found("backbone") == ("second NCHW",)


@pytest.mark.parametrize("source", [WORDS, ViewSpec.map(10, 3, 4)], ids=str)
@pytest.mark.parametrize("kind", UNITS)
def test_every_unit_kind(kind: str, source: ViewSpec) -> None:
    layers = ["first", "second"]
    check_model(Network(), as_source=False, example_inputs=PICTURES, layers=layers, unit=kind, source_spec=source)


def test_neither_model_nor_random_numbers_are_touched() -> None:
    model = Network().train()
    nn.init.zeros_(model.head.weight)
    values = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    attributes = [dict(vars(module)) for module in model.modules()]
    states = torch.get_rng_state(), random.getstate()
    check_model(model, layers="first", example_inputs=PICTURES, as_source=False)
    assert all(torch.equal(tensor, values[name]) for name, tensor in model.state_dict().items())
    assert [dict(vars(module)) for module in model.modules()] == attributes
    assert model.training
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]


def test_every_check_states_its_contract() -> None:
    checks = list(iter_checks())
    assert len({str(check) for check in checks}) == len(checks)
    for check in checks:
        assert check.contract.endswith(".")
        assert check.function.__name__ == f"check_{check.name}"


def test_choice_of_checks() -> None:
    assert {check.role for check in iter_checks(as_source=False)} == {"backbone"}
    assert {check.role for check in iter_checks(as_backbone=False)} == {"source"}
    assert [check.name for check in iter_checks(checks=["eject", "identity"])] == ["identity", "eject"]
    assert "eject" not in [check.name for check in iter_checks(skip=["eject"])]


@pytest.mark.parametrize("option", ["checks", "skip"])
def test_an_unknown_check_names_the_closest(option: str) -> None:
    with complains(CheckError, "identty", "did you mean 'identity'"):
        check_model(Network(), **{option: ["identty"]})


@pytest.mark.parametrize("inputs", [PICTURES[:1], (), {}])
def test_fewer_than_two_samples(inputs: Any) -> None:
    with complains(CheckError, "two samples"):
        check_model(Network(), layers="first", example_inputs=inputs)


def test_a_model_prepared_for_the_other_role() -> None:
    check = next(iter_checks(as_source=False))
    with complains(CheckError, "other role"):
        check(prepare(Encoder(), "source", IDS))


def test_a_refusal_is_the_error_of_inject() -> None:
    with complains(ProbeError, "no adapter") as caught:
        check_model(nn.Linear(2, 2))
    assert not isinstance(caught.value, ContractError)
    with pytest.raises(Mi2pError, match="fires 2 times") as other:
        check_model(nn.Sequential(*[nn.Conv2d(3, 3, 1)] * 2), layers="0", example_inputs=PICTURES)
    assert not isinstance(other.value, ContractError)


def test_importing_needs_torch_alone() -> None:
    code = (
        "import sys, mi2p_inject.testing; heavy = {'pytest', 'timm', 'transformers', 'open_clip', 'typer', 'sklearn'};"
        " print(*heavy & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
