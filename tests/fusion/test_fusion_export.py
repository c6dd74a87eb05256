"""A fusion leaves the process as a graph for any number of samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mi2p_inject.fusion import FUSIONS, build_fusion


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in FUSIONS), ("gmu", {"form": "code"})])
def test_a_graph_for_any_number_of_samples(name: str, options: dict[str, Any]) -> None:
    fusion = build_fusion(name, [4, 6], 3, options=options).eval()
    batch = torch.export.Dim("batch", min=1)

    def given(rows: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        present = [torch.arange(rows) % 2 == 0, torch.arange(rows) % 3 != 1]
        return [torch.randn(rows, 4), torch.randn(rows, 6)], present

    shapes = ([{0: batch}, {0: batch}], [{0: batch}, {0: batch}])
    exported = torch.export.export(fusion, given(3), dynamic_shapes=shapes, strict=False).module()
    for rows in (1, 5):
        vectors, present = given(rows)
        assert torch.allclose(exported(vectors, present), fusion(vectors, present), atol=1e-5)
