"""A plugin of pytest: models of the classes under test get units at their first call, and a source at every call.

The classes stay what they are, since the tests ask for them by identity; only what runs on a call is added. The outcome
of each test is written as JSON. Settings come by the environment, as pytest runs in a process of its own.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mi2p_inject import ExpandedModel, SourceFeatures, ViewSpec, inject

__all__ = ["expand_calls", "pytest_configure", "pytest_runtest_logreport", "pytest_sessionfinish"]

WIDTH, TOKENS = 12, 3
_expanded: WeakKeyDictionary[nn.Module, ExpandedModel] = WeakKeyDictionary()
_within = threading.local()
_outcomes: dict[str, str] = {}


def expand_calls(cls: type[nn.Module], methods: tuple[str, ...]) -> None:
    """From now on, each instance's `methods` run on its expanded model, with random source features.

    A call inside another one, as `generate` makes them, is part of it. A call without any tensor runs as it is.
    """
    for name in methods:
        setattr(cls, name, _with_source(name, getattr(cls, name)))


def _with_source(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def called(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        tensors = [one for one in pytree.tree_leaves((args, kwargs)) if isinstance(one, Tensor) and one.ndim]
        if getattr(_within, "depth", 0) or not tensors or tensors[0].is_meta:
            return original(self, *args, **kwargs)
        me = _expanded.get(self)
        _within.depth = 1
        try:
            if me is None:
                me = _expanded[self] = inject(self, source_spec=ViewSpec.tokens(WIDTH))
            source = SourceFeatures(torch.randn(len(tensors[0]), TOKENS, WIDTH, device=tensors[0].device))
            if name == "__call__":
                return me(*args, source=source, **kwargs)
            return me.call(name, *args, source=source, **kwargs)
        finally:
            _within.depth = 0

    return called


def pytest_configure(config: pytest.Config) -> None:
    """Reads which classes get units: ``module:class`` with commas in ``MI2P_PEERS_CLASSES``; none for the reference."""
    import importlib

    for entry in filter(None, os.environ.get("MI2P_PEERS_CLASSES", "").split(",")):
        module, _, name = entry.partition(":")
        cls = getattr(importlib.import_module(module), name)
        expand_calls(cls, ("__call__", "generate") if getattr(cls, "can_generate", bool)() else ("__call__",))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Notes the outcome of a test, the first line of its error included."""
    if report.when == "call" or report.outcome != "passed":
        message = str(report.longrepr).strip().splitlines()[-1][:300] if report.failed else ""
        _outcomes[report.nodeid] = f"{report.outcome} {message}".strip()


def pytest_sessionfinish() -> None:
    """Writes the outcomes to the file that ``MI2P_PEERS_OUT`` names."""
    Path(os.environ["MI2P_PEERS_OUT"]).write_text(json.dumps(_outcomes), encoding="utf-8")
