"""Models on loan: what a backbone or a source encoder was like before the first of us changed it.

Several expanded models may share a backbone or an encoder, and any of them may be ejected or garbage-collected first.
The first to acquire records; the last to give back restores.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

from torch import nn


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

    def restore(self, model: nn.Module, frozen: bool) -> None:
        """Give a model its modes back, and where it was frozen its flags; what has come since is left alone."""
        for name, module in model.named_modules():
            module.training = self.modes.get(name, module.training)
        if frozen:
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(self.requires_grad.get(name, parameter.requires_grad))


@dataclass
class _Shared:
    record: Record
    users: int = 0
    frozen: bool = False


class SharedStates:
    """Who has borrowed what, for one role (backbones, source encoders)."""

    def __init__(self) -> None:
        self._shared: weakref.WeakKeyDictionary[nn.Module, _Shared] = weakref.WeakKeyDictionary()

    def __contains__(self, model: nn.Module) -> bool:
        return model in self._shared

    def acquire(self, model: nn.Module, record: Record | None = None, freezes: bool = False) -> Record:
        """Take part in a loan; the record is of the model as its owner knows it (a copy brings its own)."""
        loan = self._shared.setdefault(model, _Shared(record or Record.of(model)))
        loan.users += 1
        loan.frozen = loan.frozen or freezes
        return loan.record

    def release(self, model: nn.Module) -> None:
        """End one's part; the last one restores the model."""
        loan = self._shared.get(model)
        if loan is None:
            return
        loan.users -= 1
        if loan.users == 0:
            del self._shared[model]
            loan.record.restore(model, loan.frozen)


BACKBONES, SOURCES = SharedStates(), SharedStates()
