"""Shared models: the state of a backbone or a source encoder before the first expanded model changed it.

Several expanded models may share a backbone or an encoder, and any of them may be ejected or garbage-collected first.
The first to acquire records; the last to release restores. Parameters that some of them freeze train again once the
last of these is gone, whoever else is there.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace

from torch import nn

__all__ = ["Record", "SharedStates"]


@dataclass(frozen=True)
class Record:
    """Training modes and `requires_grad` flags by name."""

    modes: dict[str, bool]
    requires_grad: dict[str, bool]

    @classmethod
    def of(cls, model: nn.Module) -> Record:
        """The state of a model now."""
        return cls(
            {name: module.training for name, module in model.named_modules()},
            {name: parameter.requires_grad for name, parameter in model.named_parameters()},
        )

    def restore_modes(self, model: nn.Module) -> None:
        """Restore a model's training modes; what has come since is left alone."""
        for name, module in model.named_modules():
            module.training = self.modes.get(name, module.training)

    def restore_flags(self, model: nn.Module) -> None:
        """Restore which parameters train; what has come since is left alone."""
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(self.requires_grad.get(name, parameter.requires_grad))


@dataclass
class _Shared:
    record: Record
    users: int = 0
    freezing: int = 0


class SharedStates:
    """Which models are in use, for one role (backbones, source encoders)."""

    def __init__(self) -> None:
        self._shared: weakref.WeakKeyDictionary[nn.Module, _Shared] = weakref.WeakKeyDictionary()

    def __contains__(self, model: nn.Module) -> bool:
        return model in self._shared

    def acquire(self, model: nn.Module, record: Record | None = None, freezes: bool = False) -> Record:
        """Count one more user, before it freezes anything.

        Args:
            model: what is shared.
            record: of the model as its owner knows it (a copy brings its own); None: as it is now.
            freezes: this user keeps its parameters from training.
        """
        now = record or Record.of(model)
        shared = self._shared.setdefault(model, _Shared(now))
        if freezes and not shared.freezing:
            shared.record = replace(shared.record, requires_grad=now.requires_grad)
        shared.users += 1
        shared.freezing += freezes
        return shared.record

    def release(self, model: nn.Module, freezes: bool = False) -> None:
        """Count one user less; the last one that froze restores what trains, the last of all the modes."""
        shared = self._shared.get(model)
        if shared is None:
            return
        shared.users -= 1
        shared.freezing -= freezes
        if freezes and not shared.freezing:
            shared.record.restore_flags(model)
        if shared.users == 0:
            del self._shared[model]
            shared.record.restore_modes(model)


BACKBONES, SOURCES = SharedStates(), SharedStates()
