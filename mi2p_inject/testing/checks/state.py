"""Checks that the backbone stays what it was: while injected, after `eject`, and after an exception."""

from __future__ import annotations

from collections.abc import Callable, Set
from functools import partial
from typing import Any

import torch
from torch import nn

from mi2p_inject.testing.inputs import run
from mi2p_inject.testing.randomize import randomize_zero_parameters
from mi2p_inject.testing.snapshot import Snapshot
from mi2p_inject.testing.subject import Trial

__all__ = ["check_eject", "check_exception"]


class _InterruptionError(Exception):
    """Raised inside a forward by the check itself."""


def check_eject(trial: Trial) -> None:
    """The backbone's keys, parameters, class, signature and other hooks never change; `eject` gives it back as it was.

    With both policies of training, from a mixed state: one child in train mode, one parameter frozen, and a hook of
    somebody else, which `inject` does not call.
    """
    calls: list[int] = []
    model, bare = trial.twin(), trial.twin()
    for one in (model, bare):
        _run(trial, one)  # some models finish building themselves in their first forward
        _mix_modes(one)
        for parameter in list(one.parameters())[:1]:
            parameter.requires_grad_(False)
    model.register_forward_hook(lambda *_: calls.append(1))
    before = Snapshot(model)
    for make in (trial.expand, partial(trial.inject, trainable="units")):
        calls.clear()
        me = make(model)
        _called(trial, calls, 0, "inject")
        trainable = me.expansion_config.trainable
        frozen = {"requires_grad", "training modes"} if trainable == "units" else set()
        _unchanged(trial, before, model, bare, f"under inject with trainable={trainable!r}", {"hooks"} | frozen)
        me.train()
        me.eval()
        bare.eval()
        _run(trial, me, source=trial.source)
        _run(trial, bare)
        _called(trial, calls, 1, "a forward")
        back = me.eject()
        trial.require(back is model, "eject gives another model", expected="the backbone itself", given="another one")
        _mix_modes(bare)
        _unchanged(trial, before, model, bare, f"after eject with trainable={trainable!r}")
    model.eval()
    bare.eval()
    trial.equal(_run(trial, model), _run(trial, bare), "after eject the output is another one")


def check_exception(trial: Trial) -> None:
    """An exception in a forward arrives as itself and leaves nothing behind: no source, no hook."""
    me, bare, inputs = trial.expand(), trial.twin(), trial.inputs
    randomize_zero_parameters(me.units, strength=1.0)
    with torch.no_grad():
        plain = run(bare, inputs)
        expected = run(me, inputs, source=trial.source)
        last = me.backbone.get_submodule(me.sites[-1].path)
        handle = last.register_forward_hook(_interrupt)
        arrived = _raised(lambda: run(me, inputs, source=trial.source))
        handle.remove()
        trial.require(
            isinstance(arrived, _InterruptionError),
            "an exception in a forward does not arrive",
            expected="the exception itself",
            given=type(arrived).__name__,
        )
        trial.equal(run(me.backbone, inputs), plain, "after an exception the backbone gives another output")
        trial.equal(run(me, inputs), plain, "after an exception the output without a source is another one")
        trial.equal(
            run(me, inputs, source=trial.source),
            expected,
            "after an exception the output with a source is another one",
            of="the output before the exception",
        )


def _run(trial: Trial, model: nn.Module, **more: Any) -> Any:
    with torch.no_grad():
        return run(model, trial.inputs, **more)


def _mix_modes(model: nn.Module) -> None:
    model.eval()
    for child in list(model.children())[:1]:
        child.train()


def _called(trial: Trial, calls: list[int], times: int, what: str) -> None:
    trial.require(
        len(calls) == times,
        f"{what} does not call somebody else's hook {times} times",
        expected=f"{times}",
        given=f"{len(calls)}",
    )


def _unchanged(
    trial: Trial, before: Snapshot, model: nn.Module, bare: nn.Module, when: str, allowed: Set[str] = frozenset()
) -> None:
    changed = [change for change in before.changes(model, bare) if change not in allowed]
    trial.require(
        not changed, f"the backbone is not as it was {when}", expected="no change", given=f"other {', '.join(changed)}"
    )


def _interrupt(*_: Any) -> None:
    raise _InterruptionError


def _raised(action: Callable[[], Any]) -> BaseException | None:
    try:
        action()
    except Exception as error:
        return error
    return None
