"""The forward hook at a site, and the per-thread call it reads its source from."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mi2p_inject.core.errors import LayoutError, RecomputeError, SiteError, SourceError
from mi2p_inject.core.layout import Layout
from mi2p_inject.sources.features import PreparedSource
from mi2p_inject.units.base import Unit


@dataclass
class Call:
    """One forward of an expanded model: its source, and the sites that have fired so far."""

    source: PreparedSource
    image: tuple[int, int] | None = None
    """Size of the image that went into the backbone, if one did."""
    fired: list[str] = field(default_factory=list)
    repeat: Callable[[Tensor], PreparedSource] | None = None
    """Set where a method of the backbone runs it as often as it likes (generation): the source with some of its rows
    repeated, given their indices. None: one forward, in which each site fires once."""
    _repeated: dict[int, PreparedSource] = field(default_factory=dict)

    def source_for(self, batch: int) -> PreparedSource:
        """The source for a batch at a site: the batch of the call, or each of its rows repeated alike."""
        rows = self.source.batch
        if self.repeat is None or batch == rows or batch % rows:
            return self.source
        if batch not in self._repeated:
            indices = torch.arange(rows, device=self.source.tokens.device).repeat_interleave(batch // rows)
            self._repeated[batch] = self.repeat(indices)
        return self._repeated[batch]


class Calls(threading.local):
    """The call each thread is in; None outside a forward with a source. Copies and pickles start empty."""

    call: Call | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return (Calls, ())

    def __deepcopy__(self, memo: dict[int, Any]) -> Calls:
        copied: Calls = memo.setdefault(id(self), Calls())
        return copied


class SiteHook:
    """Adds a unit's residual to a module's output, inside a forward of its own expanded model and nowhere else.

    A callable object, not a closure: a deep copy or an unpickled copy of the expanded model carries its own unit.

    Args:
        path: the site.
        layout: how its hidden state is stored.
        unit: what is added.
        calls: the expanded model's calls, shared by its hooks.
        strict: raise where a residual would have to be resized to the site's grid.

    Raises:
        SiteError: the site fires twice in one forward.
        SourceError: batches differ, or source and site are on different devices.
        RecomputeError: it fires inside a backward pass, where its source is gone.
    """

    def __init__(self, path: str, layout: Layout, unit: Unit, calls: Calls, strict: bool = False) -> None:
        self.path, self.layout, self.unit, self.calls, self.strict = path, layout, unit, calls, strict
        self.owner: weakref.ref[nn.Module] | None = None
        """The expanded model; None in a copy of the backbone alone, where this hook is a dead thing."""
        self.served = False
        """Whether any forward with a source and gradients has run: then a recompute may be one of its."""

    @property
    def alive(self) -> bool:
        """Whether its expanded model still exists."""
        return self.owner is not None and self.owner() is not None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "owner": None}

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        call = self.calls.call
        if call is None:
            if self.served and _in_backward():
                raise RecomputeError(
                    "fired inside a backward pass, where the source of its forward is gone",
                    path=self.path,
                    expected="gradient checkpointing outside the site, or none",
                    given="a checkpointed region that holds the site",
                    fix="disable gradient checkpointing, or choose sites outside the checkpointed regions",
                )
            return None
        if self.path in call.fired and call.repeat is None:
            raise SiteError(
                "fired twice in one forward",
                path=self.path,
                expected="one call of this module in a forward",
                given="a second one",
                fix="choose a module that runs once: a shared layer, or a loop over it, cannot be a site",
            )
        if self.path not in call.fired:
            call.fired.append(self.path)
        view = self.layout.view(output, self.path, call.image)
        source = call.source_for(view.shape[0])
        if view.shape[0] != source.batch:
            raise SourceError(
                "source and backbone have different batches",
                path=self.path,
                expected=f"{view.shape[0]} rows of source features",
                given=f"{source.batch}",
                fix="pass one source per sample; mark missing ones in source_mask",
            )
        if view.device != source.tokens.device:
            raise SourceError(
                "the source features are on another device than the backbone",
                path=self.path,
                expected=str(view.device),
                given=str(source.tokens.device),
                fix="move them: source=features.to(device), or the batch before encoding",
            )
        if self.strict and self.unit.site.grid not in (None, tuple(view.shape[2:])):
            raise LayoutError(
                "a map of another grid than at injection (strict)",
                path=self.path,
                expected=str(self.unit.site),
                given=str(tuple(view.shape)),
                fix="resize the images, inject with example_inputs= of this size, or strict=False",
            )
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            self.served = True
        own = next(self.unit.parameters()).dtype
        if view.dtype != own and not torch.is_autocast_enabled(view.device.type):
            view = view.to(own)
        return self.layout.add(output, self.unit(view, source), self.path)


def hooked_paths(model: nn.Module) -> list[str]:
    """Where the hooks of live expanded models are."""
    return [path for path, module in model.named_modules() if any(hook.alive for _, hook in _ours(module))]


def purge(model: nn.Module) -> None:
    """Take away hooks whose expanded model is gone: a deep copy of a backbone carries copies of them."""
    for module in model.modules():
        for number, hook in _ours(module):
            if not hook.alive:
                del module._forward_hooks[number]


def _ours(module: nn.Module) -> list[tuple[int, SiteHook]]:
    return [(number, hook) for number, hook in module._forward_hooks.items() if isinstance(hook, SiteHook)]


def _in_backward() -> bool:
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1
