"""The forward hook at a site."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mi2p_inject.core.errors import LayoutError, RecomputeError, SiteError, SourceError
from mi2p_inject.core.expansion_config import UnitPlace
from mi2p_inject.core.numerics.precision import autocast_dtype, floating_dtype
from mi2p_inject.core.numerics.recording import is_recording
from mi2p_inject.core.numerics.weights_taken import taken_weights
from mi2p_inject.core.weights.sharded import is_sharded, sharded_apart
from mi2p_inject.expansion.call import Call, Calls, TakesPart, UnitForward
from mi2p_inject.expansion.recompute import Noted, check_gradients, in_backward, in_region, recall, remember
from mi2p_inject.sources.prepared import PreparedSource
from mi2p_inject.units.base import Unit, check_residual

__all__ = ["SiteHook", "hook_path", "hooked_paths", "purge"]


class SiteHook:
    """Adds its units' residuals to a module's output, inside a forward of its own expanded model and nowhere else.

    Each source that has a unit here, and is there, gives a residual of the same hidden state; they add.

    A callable object, not a closure: a deep copy or an unpickled copy of the expanded model carries its own.

    Args:
        places: of its units, one for each source that has one here: all of one site.
        calls: the expanded model's calls, shared by its hooks.
        strict: raise where a residual would have to be resized to the site's grid.

    Raises:
        SiteError: the site fires twice in one forward, or without gradients in training.
        SourceError: batches differ, or source and site are on different devices.
        UnitError: a unit gives no residual of its view's shape.
        InjectionError: a unit without its source is sharded by itself.
        RecomputeError: it fires inside a backward pass, and whose forward is recomputed is not to be found.
    """

    def __init__(self, places: Sequence[UnitPlace], calls: Calls, strict: bool = False) -> None:
        self.places, self.site, self.calls, self.strict = tuple(places), places[0].site, calls, strict
        self.path = self.site.path
        self.owner: weakref.ref[nn.Module] | None = None
        """The expanded model; None in a copy of the backbone alone, where this hook does nothing."""
        self.served = False
        """Whether any forward with a source and gradients has run: a recompute of which nothing is noted may be its."""

    @property
    def alive(self) -> bool:
        """Whether its expanded model still exists."""
        return self.owner is not None and self.owner() is not None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "owner": None}

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        call = self.calls.now.call
        if call is None or call.is_outside():
            found, noted = self._recomputed(call)
            if noted is not None:
                return self._add(noted.call, output, noted.image, recomputed=True)
            if found or call is None:
                return None
        if call.block and not torch.compiler.is_compiling():
            self.calls.check_task()
        if self.path in call.fired and call.once:
            raise SiteError(
                "fired twice in one forward",
                path=self.path,
                expected="one call of this module in a forward",
                given="a second one",
                fix="choose a module that runs once: a shared layer, or a loop over it, cannot be a site",
            )
        if self.path not in call.fired:
            call.fired.append(self.path)
        return self._add(call, output, call.image)

    def _recomputed(self, around: Call | None) -> tuple[bool, Noted | None]:
        """Whether a forward that has run is recomputed here, and its call; None: one without a source.

        Args:
            around: the call in which the backward pass runs that this code is in, as that of a block.
        """
        if torch.compiler.is_compiling():
            return False, None
        if not in_backward():
            remember(self.calls, None)
            return False, None
        found, noted = recall(self.calls)
        if found or (not self.served if around is None else not in_region()):
            return found, noted
        raise RecomputeError(
            "fired inside a backward pass, and the source of its forward is not to be found",
            path=self.path,
            expected="torch.utils.checkpoint around the site, or no gradient checkpointing",
            given="a region that holds the site and is recomputed in another way",
            fix="disable gradient checkpointing, or choose sites outside the checkpointed regions",
        )

    def _add(self, call: Call, output: Any, image: tuple[int, int] | None, recomputed: bool = False) -> Any:
        if (call.gradients or torch.is_grad_enabled()) and not torch.compiler.is_compiling():
            self.served = True
            remember(self.calls, Noted(call, image))
            if call.once and not torch.is_grad_enabled():  # a method such as `generate` switches them off itself
                units = [call.units[place.key] for place in self.places]
                trains = [unit.training and any(p.requires_grad for p in unit.parameters()) for unit in units]
                check_gradients(self.path, any(trains))
        view = self.site.layout.view(output, self.path, image)
        total: Tensor | None = None
        for place in self.places:
            residual = self._residual(call, place, view, recomputed)
            if residual is not None:
                total = residual if total is None else total + residual
        return output if total is None else self.site.layout.add(output, total, self.path)

    def _residual(self, call: Call, place: UnitPlace, view: Tensor, recomputed: bool) -> Tensor | None:
        """What one source adds; None where it is missing."""
        unit: Unit = call.units[place.key]  # type: ignore[assignment]
        if place.source not in call.sources:
            if call.takes_part and is_sharded(unit):
                raise sharded_apart(self.path, "a unit whose source is missing here, while other processes gather it")
            trained = [parameter for parameter in unit.parameters() if parameter.requires_grad]
            return TakesPart.apply(view, *trained) if trained and call.takes_part else None
        parameter = next(unit.parameters())
        if view.device != parameter.device:
            raise SourceError(
                "the unit is on another device than its site",
                path=self.path,
                expected=str(view.device),
                given=str(parameter.device),
                fix="move the expanded model as a whole: me.to(device); a device map comes before inject",
            )
        source = call.source_for(place.source, self.path, view.shape[0], view.device)
        self._check_fits(unit, view, source)
        if autocast_dtype(view) is None:
            view = view.to(floating_dtype(unit))
        if not call.recorders:
            residual: Tensor = self._checked(unit(view, source), view, unit)
            return residual
        with taken_weights() as weights:
            residual = self._checked(unit(view, source), view, unit)
        for recorder in () if recomputed else call.recorders:
            recorder.take(call, place, unit, UnitForward(view, source, residual, weights))
        return residual

    def _checked(self, residual: Tensor, view: Tensor, unit: Unit) -> Tensor:
        if not is_recording():  # a comparison of free sizes would bind them
            check_residual(residual, view, unit, self.path)
        return residual

    def _check_fits(self, unit: Unit, view: Tensor, source: PreparedSource) -> None:
        if view.shape[0] != source.batch:
            raise SourceError(
                "source and backbone have different batches",
                path=self.path,
                expected=f"{view.shape[0]} rows of source features",
                given=f"{source.batch}",
                fix="pass one source per sample; mark missing ones in source_mask",
            )
        if self.strict and unit.site.grid not in (None, tuple(view.shape[2:])):
            raise LayoutError(
                "a map of another grid than at injection (strict)",
                path=self.path,
                expected=str(unit.site),
                given=str(tuple(view.shape)),
                fix="resize the images, inject with example_inputs= of this size, or strict=False",
            )


def hook_path(backbone: nn.Module, path: str) -> str:
    """Where the hook of a site is: at the site, or at the last child of a plain `nn.Sequential`, which gives the same.

    timm's gradient checkpointing runs the children of a stage in place of the stage, whose own hooks then never run.

    Examples:
        >>> from torch import nn
        >>> from mi2p_inject.expansion.hook import hook_path
        >>> hook_path(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.ReLU(), nn.ReLU())), "1")
        '1.1'
    """
    times = Counter(id(module) for _, module in backbone.named_modules(remove_duplicate=False))
    module = backbone.get_submodule(path)
    while isinstance(module, nn.Sequential) and _is_plain(module) and len(module):
        name, child = list(module.named_children())[-1]
        compiled = getattr(child, "_compiled_call_impl", None) is not None
        if times[id(child)] != times[id(module)] or compiled or child is not module[-1]:
            break
        module, path = child, f"{path}.{name}"
    return path


def _is_plain(module: nn.Sequential) -> bool:
    return type(module).forward is nn.Sequential.forward and "forward" not in vars(module)


def hooked_paths(model: nn.Module) -> list[str]:
    """Where the hooks of live expanded models are."""
    return [hook.path for module in model.modules() for _, hook in _ours(module) if hook.alive]


def purge(model: nn.Module) -> None:
    """Take away hooks whose expanded model is gone: a deep copy of a backbone carries copies of them."""
    for module in model.modules():
        for number, hook in _ours(module):
            if not hook.alive:
                del module._forward_hooks[number]


def _ours(module: nn.Module) -> list[tuple[int, SiteHook]]:
    return [(number, hook) for number, hook in module._forward_hooks.items() if isinstance(hook, SiteHook)]
