"""The table of adapters: none goes untested, contradictions are refused, other distributions can add theirs."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from models import HEADED, TINY
from torch import nn

from mi2p_inject.adapters import Adapter, Readout, adapters, find
from mi2p_inject.core.errors import AdapterError
from mi2p_inject.core.layout import Axes, Layout
from mi2p_inject.core.registry import entry_points_of


def installed(name: str) -> bool:
    """Whether the installed release of its library has a class."""
    module, _, cls = name.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), cls)
    except ModuleNotFoundError:
        return False


def test_no_class_of_any_adapter_goes_untested() -> None:
    built = [type(tiny.build()) for tiny in TINY.values()]
    tested = {f"{cls.__module__}.{cls.__qualname__}" for cls in built}
    here = [one for one in adapters() if all(map(installed, one.classes))]
    missing = {cls for one in here for cls in one.classes} - tested
    assert not missing, f"add an entry to TINY in tests/support/models.py for {missing}"
    assert {one.name for one in here} <= set(TINY)
    assert len(here) >= len(adapters()) - 1  # one class is newer than the oldest timm that is supported
    assert {tiny.adapter for tiny in (*TINY.values(), *HEADED.values())} <= {adapter.name for adapter in adapters()}


def test_models_without_an_adapter_are_derived_or_not_found() -> None:
    from transformers import AlbertConfig, AlbertModel

    tiny = {"embedding_size": 8, "hidden_size": 8, "num_attention_heads": 1, "intermediate_size": 8, "vocab_size": 9}
    derived = find(AlbertModel(AlbertConfig(**tiny)))
    assert derived is not None
    assert (derived.adapter.name, derived.adapter.layout) == ("AlbertModel", None)
    assert derived.adapter not in adapters()
    assert find(nn.Sequential(nn.Linear(2, 2))) is None


def test_two_encoders_are_refused() -> None:
    both = nn.ModuleDict({"a": TINY["bert"].build(), "b": TINY["hf_vit"].build()})
    with pytest.raises(AdapterError, match=r"several encoders(.|\n)*a \(bert\), b \(hf_vit\)"):
        find(both)


BERT = next(adapter for adapter in adapters() if adapter.name == "bert")
DENSENET = next(adapter for adapter in adapters() if adapter.name == "densenet")


@pytest.mark.parametrize(
    ("adapter", "wrong"),
    [
        (BERT, {"name": ""}),
        (BERT, {"classes": ()}),
        (BERT, {"classes": ("BertModel",)}),
        (BERT, {"sites": ()}),
        (BERT, {"num_heads": 0}),
        (BERT, {"layout": Layout(Axes.NLC, prefix=1, grid=(2, 2))}),
        (DENSENET, {"patches": 1}),
        (DENSENET, {"readout": Readout(Layout(Axes.NCHW), pooled="cls")}),
    ],
)
def test_an_adapter_that_contradicts_itself_is_refused(adapter: Adapter, wrong: dict[str, Any]) -> None:
    with pytest.raises(AdapterError, match="contradicts itself"):
        replace(adapter, **wrong)


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Installs a distribution with an entry point of our group, for the time of one test."""

    def install(source: str, target: str) -> None:
        (tmp_path / "third_party_adapters.py").write_text(source)
        info = tmp_path / "third_party_adapters-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party-adapters\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[mi2p_inject.adapters]\nmine = {target}\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "third_party_adapters", raising=False)
        adapters.cache_clear()
        entry_points_of.cache_clear()

    yield install
    monkeypatch.undo()
    sys.modules.pop("third_party_adapters", None)
    adapters.cache_clear()
    entry_points_of.cache_clear()


MINE = """
from dataclasses import replace
from mi2p_inject.adapters.families import hf_text
ADAPTER = replace(hf_text.BERT, name="mine", classes=("torch.nn.modules.container.Sequential",), sites=("*",))
CLASH = replace(ADAPTER, name="bert")
STOLEN = replace(hf_text.BERT, name="mine")
ADAPTERS = [ADAPTER]
NUMBER = 3
WORDS = ["bert"]
"""


@pytest.mark.parametrize("attribute", ["ADAPTER", "ADAPTERS"])
def test_those_of_another_distribution_are_picked_up(third_party: Callable[[str, str], None], attribute: str) -> None:
    third_party(MINE, f"third_party_adapters:{attribute}")
    assert adapters()[-1].name == "mine"
    match = find(nn.Sequential(nn.Linear(2, 2)))
    assert match is not None
    assert match.adapter.name == "mine"


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("third_party_adapters:CLASH", "share a name"),
        ("third_party_adapters:STOLEN", "share a class"),
        ("third_party_adapters:WORDS", "no adapter"),
        ("third_party_adapters:NUMBER", "'mine'"),
        ("third_party_adapters:NOWHERE", "'mine'"),
        ("no_such_module_of_mine:ADAPTER", "'mine'"),
    ],
)
def test_a_broken_entry_point_is_named(third_party: Callable[[str, str], None], target: str, says: str) -> None:
    third_party(MINE, target)
    with pytest.raises(AdapterError, match=says):
        adapters()


def test_adapters_import_no_model_library() -> None:
    heavy = {"timm", "transformers", "open_clip"}
    code = f"import sys, mi2p_inject.adapters as a; a.adapters(); print(*{heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
