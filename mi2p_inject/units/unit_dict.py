"""The units of an expanded model, by key."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, ValuesView

from torch import nn

__all__ = ["UnitDict"]


class UnitDict(nn.Module):
    """As `nn.ModuleDict`, which PEFT refuses to train beside an adapter (``modules_to_save=["units"]``).

    PEFT puts a wrapper of its own in the place of this module, with a trained copy inside. Attributes of the wrapper
    are those of the copy in use, so `in_use()` reaches that copy through it.

    Examples:
        >>> from torch import nn
        >>> from mi2p_inject.units.unit_dict import UnitDict
        >>> units = UnitDict()
        >>> units["/layer1"] = nn.Linear(2, 2)
        >>> list(units), [name for name, _ in units.named_parameters()], units.in_use() is units
        (['/layer1'], ['/layer1.weight', '/layer1.bias'], True)
    """

    def in_use(self) -> UnitDict:
        """This module."""
        return self

    def __getitem__(self, key: str) -> nn.Module:
        unit = self._modules[key]
        if unit is None:
            raise KeyError(key)
        return unit

    def __setitem__(self, key: str, unit: nn.Module) -> None:
        self.add_module(key, unit)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]

    def __contains__(self, key: object) -> bool:
        return key in self._modules

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)

    def keys(self) -> KeysView[str]:
        """The keys, as of a dict."""
        return self._modules.keys()

    def values(self) -> ValuesView[nn.Module | None]:
        """The units, as of a dict."""
        return self._modules.values()

    def items(self) -> ItemsView[str, nn.Module | None]:
        """Keys and units, as of a dict."""
        return self._modules.items()
