"""A fusion leaves the process as a graph for any number of samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mi2p_inject.fusion import FUSIONS, build_fusion


class Transform(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft(x).abs()


def exports_fourier_transforms() -> bool:
    """For any number of rows: torch 2.6 does not."""
    shapes = ({0: torch.export.Dim("rows")},)
    try:
        torch.export.export(Transform(), (torch.ones(2, 4),), dynamic_shapes=shapes, strict=False)
    except torch._subclasses.fake_tensor.UnsupportedOperatorException:
        return False
    return True


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in FUSIONS), ("gmu", {"form": "code"})])
def test_a_graph_for_any_number_of_samples(name: str, options: dict[str, Any]) -> None:
    if "bilinear" in name and not exports_fourier_transforms():
        pytest.skip("this torch exports no Fourier transform")
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
