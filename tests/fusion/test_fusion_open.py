"""The table of fusions is open: a fusion of another distribution trains, saves and loads like ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import complains
from safetensors.torch import load_file, save_file
from third_party import installed
from torch import Tensor

from mi2p_inject.core.errors import FusionError
from mi2p_inject.fusion import FUSIONS, ConcatFusion, Fusion, build_fusion, fusion_options

VECTORS = [torch.randn(4, 5, generator=torch.Generator().manual_seed(0)), torch.linspace(-1, 1, 12).view(4, 3)]


def test_a_fusion_of_another_distribution_trains_saves_and_loads(tmp_path: Path) -> None:
    with installed(tmp_path):
        assert fusion_options("product") == {"width": 8}
        fusion = build_fusion("product", (5, 3), 2, options={"width": 4})
        optimizer = torch.optim.SGD(fusion.parameters(), 0.1)
        before = fusion(VECTORS)
        before.square().sum().backward()
        optimizer.step()
        after = fusion(VECTORS)
        assert not torch.equal(after, before)
        save_file(fusion.state_dict(), tmp_path / "fusion.safetensors")
        again = build_fusion("product", (5, 3), 2, options={"width": 4})
        again.load_state_dict(load_file(tmp_path / "fusion.safetensors"))
        assert torch.equal(again(VECTORS), after)
    with complains(FusionError, "unknown fusion 'product'", "score, concat"):
        build_fusion("product", (5, 3), 2)


@pytest.mark.parametrize(
    ("line", "asked", "words"),
    [
        ("concat = third_party_kinds:ProductFusion", "concat", "two fusions share a name"),
        ("product = third_party_kinds:NUMBER", "product", "entry point 'product' gives something that is no fusion"),
        ("product = third_party_kinds:NUDGE", "product", "entry point 'product' gives something that is no fusion"),
        ("product = no_such_module_at_all:X", "product", "entry point 'product' cannot be loaded"),
        ("product = third_party_kinds:ProductFusion", "prodcut", "did you mean 'product'"),
    ],
)
def test_a_broken_entry_point_is_named(tmp_path: Path, line: str, asked: str, words: str) -> None:
    with installed(tmp_path, f"[mi2p_inject.fusions]\n{line}\n"), complains(FusionError, words):
        build_fusion(asked, (5, 3), 2)


def test_a_fusion_of_a_notebook_can_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FUSIONS, "entries", dict(FUSIONS.entries))
    FUSIONS.register("mine", ConcatFusion)
    assert type(build_fusion("mine", (5, 3), 2)) is ConcatFusion


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("cross-attention", {"widht": 3}, "did you mean 'width'"),
        ("cross-attention", {"multi_label": True}, "no option 'multi_label'"),
        ("concat", {"width": 3}, "no options"),
        ("cross-atention", {}, "did you mean 'cross-attention'"),
    ],
)
def test_unknown_options_and_names(name: str, options: dict[str, Any], words: str) -> None:
    with complains(FusionError, words):
        build_fusion(name, (5, 3), 2, options=options)


ODD: dict[str, Callable[[Tensor], Any]] = {
    "one row for all": lambda logits: logits[:1],
    "one number a row": lambda logits: logits[:, 0],
    "fewer classes": lambda logits: logits[:, :1],
    "a tuple": lambda logits: (logits,),
    "nothing": lambda logits: None,
}


@pytest.mark.parametrize("gives", ODD)
def test_what_is_no_logits_of_each_row_and_class_is_refused(gives: str) -> None:
    class Odd(Fusion):
        def fuse(self, vectors: list[Tensor], present: Tensor) -> Tensor:
            found: Tensor = ODD[gives](torch.cat(vectors, 1)[:, : self.classes])
            return found

    with complains(FusionError, "Odd", "4, 2"):
        Odd((5, 3), 2)(VECTORS)
