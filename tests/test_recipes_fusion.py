"""Late fusion: one contract for every row of the table."""

from __future__ import annotations

import pytest
import torch

from mi2p_inject.errors import Mi2pError
from mi2p_inject.fusion import FUSIONS, ScoreFusion


@pytest.mark.parametrize("name", FUSIONS)
class TestContract:
    def test_gives_probabilities(self, name: str) -> None:
        fused = FUSIONS[name]()([torch.randn(4, 3) for _ in range(2)])
        assert fused.shape == (4, 3)
        assert torch.allclose(fused.sum(dim=-1), torch.ones(4))
        assert (fused >= 0).all()

    @pytest.mark.parametrize("shapes", [[], [(4, 3), (4, 2)], [(4, 3), (5, 3)], [(3,), (3,)]])
    def test_names_shapes_that_do_not_fit(self, name: str, shapes: list[tuple[int, ...]]) -> None:
        with pytest.raises(Mi2pError, match=r"\(B, K\)"):
            FUSIONS[name]()([torch.zeros(shape) for shape in shapes])


def test_score_is_the_mean_of_the_probabilities() -> None:
    first, second, third = (torch.randn(5, 4, generator=torch.Generator().manual_seed(i)) for i in range(3))
    fused = ScoreFusion()([first, second, third])
    for row in range(5):
        for column in range(4):
            expected = sum(
                (logits[row, column].exp() / logits[row].exp().sum()).item() for logits in (first, second, third)
            )
            assert fused[row, column].item() == pytest.approx(expected / 3, rel=1e-5)


def test_score_of_one_branch_is_its_softmax() -> None:
    logits = torch.randn(2, 3)
    assert torch.equal(ScoreFusion()([logits]), logits.softmax(dim=-1))
