"""The pooled shift of a unit mi2p: what the source says as a whole, at every position of the site."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from random_units import random_unit, run
from torch import Tensor, nn

from mi2p_inject import MI2P, ViewSpec, inject
from mi2p_inject.checkpoint.schema import expansion_config_of, read_config
from mi2p_inject.units import UNITS

SITES = [ViewSpec.map(6, 4, 4), ViewSpec.tokens(24)]
SOURCES = [ViewSpec.map(5, 3, 3), ViewSpec.tokens(12)]


def example(spec: ViewSpec, rows: int = 3) -> Tensor:
    """As wide as the spec, in float64."""
    torch.manual_seed(1)
    shape = (spec.width, *spec.grid) if spec.grid else (7, spec.width)
    return torch.randn(rows, *shape, dtype=torch.float64)


@pytest.mark.parametrize("site", SITES, ids=str)
@pytest.mark.parametrize("source", SOURCES, ids=str)
@pytest.mark.parametrize("readout", [0, 3])
def test_it_adds_the_same_at_every_position(site: ViewSpec, source: ViewSpec, readout: int) -> None:
    """Attention's own part is the residual of the same unit without it."""
    unit, view, given = random_unit(site, source, readout=readout), example(site), example(source)
    expected = run(unit, view, given)
    unit.source_to_shift = None
    shift = (expected - run(unit, view, given)).flatten(2) if site.grid else (expected - run(unit, view, given)).mT
    torch.testing.assert_close(shift, shift[..., :1].expand_as(shift))
    assert float(shift.std(1).min()) > 0.1


@pytest.mark.parametrize("site", SITES, ids=str)
@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_it_starts_at_zero_and_learns_from_the_first_step(site: ViewSpec, source: ViewSpec) -> None:
    unit = MI2P().build(site, source).double()
    residual = run(unit, example(site), example(source))
    assert not residual.any()
    (residual * torch.randn_like(residual)).sum().backward()
    assert unit.source_to_shift is not None
    assert float(unit.source_to_shift.weight.grad.abs().sum()) > 0


@pytest.mark.parametrize("site", SITES, ids=str)
def test_padding_does_not_count_and_rows_without_a_token_get_nothing(site: ViewSpec) -> None:
    unit, view, words = random_unit(site, SOURCES[1]), example(site), example(SOURCES[1])
    mask = torch.arange(7) < torch.tensor([7, 3, 0]).unsqueeze(1)
    found = run(unit, view, words, mask)
    torch.testing.assert_close(found[1:2], run(unit, view[1:2], words[1:2, :3]))
    assert not found[2].any()


@pytest.mark.parametrize("site", SITES, ids=str)
def test_one_head_leaves_what_attention_saved_for_its_gradient_alone(site: ViewSpec) -> None:
    """With one head the residual is a view of what attention gave: nothing may be added there in place."""
    unit = random_unit(site, SOURCES[1], num_heads=1, readout=0)
    assert torch.autograd.gradcheck(lambda view, words: run(unit, view, words), [
        example(one, 1).requires_grad_() for one in (site, SOURCES[1])
    ], fast_mode=True)  # fmt: skip


def test_the_papers_unit_has_none() -> None:
    assert UNITS["mi2p-paper"].build(*SITES).source_to_shift is None
    assert UNITS["mi2p"].build(*SITES).source_to_shift is not None


def test_a_checkpoint_of_before_stays_without_it(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1))
    inject(net, ["0"], source_spec=SOURCES[1], example_inputs=torch.randn(2, 3, 4, 4)).save_pretrained(tmp_path / "me")
    config = read_config(tmp_path / "me")
    assert expansion_config_of(config, tmp_path).unit == MI2P()
    del config["unit"]["options"]["pooled_shift"]
    assert expansion_config_of(config, tmp_path).unit == MI2P(pooled_shift=False)
