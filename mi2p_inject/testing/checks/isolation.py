"""Checks that nothing leaks: between threads, nested forwards, expanded models of one backbone, and copies."""

from __future__ import annotations

import copy
import pickle
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, BrokenBarrierError
from typing import Any

import torch
from torch import nn

from mi2p_inject.core.errors import InjectionWarning
from mi2p_inject.expansion.expanded_model import ExpandedModel
from mi2p_inject.testing.checks.outputs import silenced
from mi2p_inject.testing.compare import difference
from mi2p_inject.testing.inputs import run, seed_everything
from mi2p_inject.testing.randomize import randomize_zero_parameters
from mi2p_inject.testing.subject import Trial

__all__ = ["check_copies", "check_threads", "check_two_models"]

THREADS, SECONDS = 3, 10


def check_threads(trial: Trial) -> None:
    """Forwards in several threads at once, with other sources and without one, give what each gives alone."""
    me, bare = trial.expand(), trial.twin()
    randomize_zero_parameters(me.units, strength=1.0)
    sources = [trial.features(seed) for seed in range(THREADS)]
    with torch.no_grad():
        plain = run(bare, trial.inputs)
        expected = [run(me, trial.inputs, source=source) for source in sources]

    together = Barrier(THREADS)

    def alone(number: int) -> str:
        args, kwargs = copy.deepcopy(trial.inputs)
        with torch.no_grad():
            return difference(bare(*args, **kwargs), plain)

    def work(number: int) -> str:
        args, kwargs = copy.deepcopy(trial.inputs)
        with suppress(BrokenBarrierError):  # where the system gives fewer threads they run one after another
            together.wait(timeout=SECONDS)
        with torch.no_grad():
            found = difference(me(*args, source=sources[number], **kwargs), expected[number])
            return found or difference(me(*args, **kwargs), plain)

    seed_everything()
    with ThreadPoolExecutor(THREADS) as pool:
        found = [one for one in pool.map(_outcome(work), range(THREADS)) if one]
        if found and any(pool.map(_outcome(alone), range(THREADS))):
            trial.note("the model itself gives other outputs when several threads run it")
            return
    trial.require(
        not found,
        "threads change each other's outputs",
        expected="what each gives alone",
        given=found[0] if found else "",
    )


def check_two_models(trial: Trial) -> None:
    """Two expanded models over one backbone, also one inside the other's forward, never see each other's units."""
    model, bare, inputs = trial.twin(), trial.twin(), trial.inputs
    one = trial.expand(model)
    randomize_zero_parameters(one.units, strength=1.0)
    with torch.no_grad():
        plain = run(bare, inputs)
        expected = run(one, inputs, source=trial.source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InjectionWarning)
        other = trial.inject(model)
    with torch.no_grad():
        again = run(one, inputs, source=trial.source)
        trial.equal(again, expected, "a second expanded model changes the first one's output", "the output before")
        trial.equal(
            run(other, inputs, source=trial.source), plain, "the second expanded model runs the first one's units"
        )
        trial.equal(run(model, inputs), plain, "the backbone by itself gives another output")
        _check_nested(trial, one, expected)
        other.eject()
        again = run(one, inputs, source=trial.source)
        trial.equal(again, expected, "ejecting the second model changes the first one's output", "the output before")
        one.eject()
        trial.equal(run(model, inputs), plain, "after both are ejected the output is another one")


def check_copies(trial: Trial) -> None:
    """A deep copy and a pickled copy give the same output, with units and a backbone of their own."""
    me, bare = trial.expand(), trial.twin()
    randomize_zero_parameters(me.units, strength=1.0)
    with torch.no_grad():
        plain = run(bare, trial.inputs)
        expected = run(me, trial.inputs, source=trial.source)
    ways: dict[str, Callable[[Any], Any]] = {"deepcopy": copy.deepcopy}
    try:
        _pickled(bare)
    except Exception as error:
        trial.note(f"the model itself cannot be pickled: {type(error).__name__}")
    else:
        ways["pickle"] = _pickled
    for way, make in ways.items():
        other: ExpandedModel = make(me)
        shared = {id(tensor) for tensor in me.state_dict(keep_vars=True).values()}
        own = not any(id(tensor) in shared for tensor in other.state_dict(keep_vars=True).values())
        trial.require(own, f"a copy by {way} shares tensors", expected="tensors of its own", given="the original's")
        with torch.no_grad():
            copied = run(other, trial.inputs, source=trial.source)
            trial.equal(copied, expected, f"a copy by {way} gives another output", "the original's output")
            with silenced(*(other.unit(site.path) for site in other.sites)):
                copied = run(other, trial.inputs, source=trial.source)
                kept = run(me, trial.inputs, source=trial.source)
            trial.equal(copied, plain, f"a copy by {way} does not use its own units")
            trial.equal(kept, expected, f"the original uses the units of its copy by {way}", "the output before")


def _check_nested(trial: Trial, me: ExpandedModel, expected: Any) -> None:
    """Another expanded model runs, with another source, between two sites of this one."""
    inner = copy.deepcopy(me)
    source = trial.features(seed=1)
    inside = run(inner, trial.inputs, source=source)
    seen: list[Any] = []
    first = me.backbone.get_submodule(me.sites[0].path)
    handle = first.register_forward_hook(lambda *_: seen.append(run(inner, trial.inputs, source=source)))
    output = run(me, trial.inputs, source=trial.source)
    handle.remove()
    trial.equal(output, expected, "a forward inside a forward changes the outer output", "the output without it")
    for one in seen:
        trial.equal(one, inside, "a forward inside a forward gives another output", "its output outside")


def _outcome(function: Callable[[int], str]) -> Callable[[int], str]:
    def outcome(number: int) -> str:
        try:
            return function(number)
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    return outcome


def _pickled(model: nn.Module) -> nn.Module:
    with tempfile.TemporaryFile() as file:  # a large model twice in memory is enough
        pickle.dump(model, file)
        file.seek(0)
        again: nn.Module = pickle.load(file)
    return again
