"""Whether a model is in a state that can be injected: `inject` and `load` both ask."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.jit._script import RecursiveScriptModule

from mi2p_inject.core.errors import InjectionError, InjectionWarning
from mi2p_inject.core.shared_state import SOURCES
from mi2p_inject.expansion.hook import hook_path, hooked_paths
from mi2p_inject.expansion.running import RunningModel

__all__ = ["check_injectable", "check_modules"]


def check_modules(model: nn.Module, encoders: Mapping[str, nn.Module]) -> None:
    """Raise where one of them is no module, is expanded already, or the model's forward takes `source` itself."""
    named = [(f"source_encoder[{name!r}]" if name else "source_encoder", one) for name, one in encoders.items()]
    for what, module in (("model", model), *named):
        if not isinstance(module, nn.Module):
            raise InjectionError(
                f"{what} is no module",
                expected="torch.nn.Module",
                given=type(module).__name__,
                fix=f"pass {what}= a model",
            )
        if isinstance(module, RecursiveScriptModule):
            raise InjectionError(
                f"{what} is a module of torch.jit as a whole, whose parts cannot be named",
                expected="a torch.nn.Module, which may hold modules of torch.jit",
                given=f"a scripted or loaded {getattr(module, 'original_name', 'module')}",
                fix="pass the model that it was made from, or a torch.nn.Module whose forward calls it",
            )
        if isinstance(module, RunningModel):
            raise InjectionError(
                f"{what} is an expanded model already",
                expected="a unimodal model",
                given=f"an ExpandedModel with sites {', '.join(site.path for site in module.sites)}",
                fix="inject its backbone (me.eject() gives it back), with all the layers you want at once",
            )
    taken = {"source", "source_mask"} & set(_parameters(model.forward))
    if taken:
        raise InjectionError(
            f"the model's own forward has an argument called {', '.join(sorted(taken))}",
            expected="a forward without `source` and `source_mask`, which the expanded model takes",
            given=f"{type(model).__name__}.forward",
            fix="wrap the model in a module whose forward names them otherwise",
        )


def _parameters(function: Any) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # a traced or compiled forward does not tell
        return []


def check_injectable(model: nn.Module, encoders: Mapping[str, nn.Module], paths: Sequence[str]) -> None:
    """Refuse a model in a state that would make units silently useless or wrong; `inject` and `load` both ask.

    Raises:
        InjectionError: scripted, compiled, serving as a source encoder, sharing modules with its source, or an
            ambiguous forward.
    """
    check_modules(model, encoders)
    _check_not_scripted(model, paths)
    _check_not_compiled(model, paths)
    if model in SOURCES:
        raise InjectionError(
            f"this {type(model).__name__} is the frozen source encoder of another expanded model",
            expected="a backbone of its own: as a source it must not change",
            given="one model in both roles",
            fix="inject copy.deepcopy(model)",
        )
    for source_encoder in encoders.values():
        own = {*model.modules(), *model.parameters()}
        if not own.isdisjoint({*source_encoder.modules(), *source_encoder.parameters()}):
            raise InjectionError(
                "source encoder and backbone share modules or weights",
                expected="two models: one trains, one is frozen",
                given=f"{type(source_encoder).__name__} and {type(model).__name__}",
                fix="pass copy.deepcopy(...) of the source encoder",
            )
        if hooked := hooked_paths(source_encoder):
            raise InjectionError(
                "the source encoder is itself the backbone of an expanded model",
                path=hooked[0],
                expected="a frozen encoder of its own",
                given="one model in both roles",
                fix="pass copy.deepcopy(encoder) made before it was injected",
            )
    if hooked := hooked_paths(model):
        warnings.warn(
            InjectionWarning(
                f"site '{hooked[0]}': this backbone already carries the units of another live expanded model; the two "
                "share its weights, what trainable='units' of one freezes is frozen for both, and neither sees the "
                "other's units.\n  expected: one expanded model a backbone\n"
                f"  given: a second injection (sites of the first: {', '.join(hooked)})\n"
                "  fix: drop or eject() the first one if it is not wanted"
            ),
            stacklevel=3,
        )


def _check_not_scripted(model: nn.Module, paths: Sequence[str]) -> None:
    """A scripted module takes no hook, and what is in it runs without Python."""
    for path, module in model.named_modules():
        if isinstance(module, RecursiveScriptModule):
            inside = _inside(path, paths)
            if inside:
                raise InjectionError(
                    "a scripted module takes no hook, nor does what is in it",
                    path=inside[0],
                    expected="a module that Python runs",
                    given=f"torch.jit at {path}",
                    fix="choose the module before or around it, or inject before torch.jit.script",
                )


def _check_not_compiled(model: nn.Module, paths: Sequence[str]) -> None:
    """A hook added to a module that was compiled before is ignored silently."""
    there = {path for path, _ in model.named_modules(remove_duplicate=False)}
    hooked = [hook_path(model, site) for site in paths if site in there]  # `load` refuses a path that is not
    for path, module in model.named_modules():
        compiled = getattr(module, "_compiled_call_impl", None) is not None
        if not compiled and not isinstance(module, torch._dynamo.eval_frame.OptimizedModule):
            continue
        inside = _inside(path, hooked)
        if inside:
            raise InjectionError(
                "the model is compiled already, and would ignore a hook added now",
                path=inside[0],
                expected="a model that has not been compiled",
                given=f"compiled at {path or 'its root'}",
                fix="inject the original model first, then torch.compile(the expanded model)",
            )


def _inside(path: str, sites: Sequence[str]) -> list[str]:
    """Those at or below a module."""
    return [site for site in sites if not path or site == path or site.startswith(f"{path}.")]
