"""Checks of training: gradients reach every unit and every parameter of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mi2p_inject.expansion.expanded_model import ExpandedModel
from mi2p_inject.testing.compare import mixture
from mi2p_inject.testing.inputs import run
from mi2p_inject.testing.subject import Trial

__all__ = ["check_gradients", "gradients", "step"]

STEP = 0.01
Gradients = dict[str, Tensor | None]


def check_gradients(trial: Trial) -> None:
    """At step zero a finite gradient reaches each unit, after a step each parameter; that step changes the output."""
    me, inputs = trial.expand(), trial.inputs
    first = run(me, inputs, source=trial.source)
    step(me, gradients(trial, me, first, each_parameter=False))
    second = run(me, inputs, source=trial.source)
    trial.differ(second, first, "a step of training changes nothing of the output")
    gradients(trial, me, second, each_parameter=True)


def gradients(trial: Trial, me: ExpandedModel, output: Any, each_parameter: bool) -> Gradients:
    """Gradients of the units' parameters, after checking that each unit, or each parameter, has a finite one."""
    names, parameters = zip(*me.units.named_parameters(), strict=True)
    scalar = mixture(output)
    if scalar is None:
        trial.require(False, "the output carries no gradient", expected="a grad_fn", given="none")
        return {}
    found = torch.autograd.grad(scalar, parameters, allow_unused=True)
    by_name: Gradients = dict(zip(names, found, strict=True))
    for name, grad in by_name.items():
        finite = grad is None or bool(grad.isfinite().all())
        trial.require(finite, f"the gradient of {name} is not finite", expected="finite", given="NaN or infinity")
    for place in me.expansion_config.places:
        own = {name: grad for name, grad in by_name.items() if name.startswith(f"{place.key}.")}
        reached = [name for name, grad in own.items() if grad is not None and bool(grad.any())]
        wanted = list(own) if each_parameter else reached or ["any parameter"]
        for name in wanted:
            trial.require(
                name in reached,
                f"no gradient reaches {name.removeprefix(f'{place.key}.')} of the unit",
                path=place.site.path,
                expected="a gradient that is not zero",
                given="zero, or none",
                fix="what the unit adds must reach the output through operations that autograd follows",
            )
    return by_name


def step(me: ExpandedModel, found: Gradients) -> None:
    """One step of every unit against its gradient's sign: of one length, however small the gradients are."""
    with torch.no_grad():
        for name, parameter in me.units.named_parameters():
            grad = found.get(name)
            if grad is not None:
                parameter.sub_(STEP * grad.sign())
