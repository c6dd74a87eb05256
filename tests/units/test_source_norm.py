"""Layer normalisation of the tokens that a unit mi2p attends to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from random_units import random_unit, run
from torch import Tensor, nn

from mi2p_inject import MI2P, SourceFeatures, ViewSpec, inject, load
from mi2p_inject.checkpoint.schema import expansion_config_of, read_config
from mi2p_inject.core.numerics.normalise import normalised
from mi2p_inject.sources.features import prepare
from mi2p_inject.units import UNITS
from mi2p_inject.units.mi2p import MI2PUnit

SITE, WORDS = ViewSpec.map(6, 4, 4), ViewSpec.tokens(24)


def read(unit: MI2PUnit, source: Tensor, mask: Tensor | None = None) -> Tensor:
    view = torch.linspace(-1, 1, len(source) * 6 * 4 * 4, dtype=torch.float64).view(-1, 6, 4, 4)
    return run(unit, view, source, mask)


def test_how_large_the_numbers_of_a_source_are_does_not_count() -> None:
    unit, words = random_unit(SITE, WORDS), torch.randn(2, 5, 24, dtype=torch.float64)
    torch.testing.assert_close(read(unit, 100 * words + 7), read(unit, words), atol=1e-2, rtol=1e-2)
    without = random_unit(SITE, WORDS, source_norm=False)
    assert not torch.allclose(read(without, 100 * words + 7), read(without, words), atol=1, rtol=1)


def test_it_reads_what_a_unit_without_it_reads_of_normalised_tokens() -> None:
    words = torch.randn(3, 5, 24, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], dtype=torch.bool)
    literally = (words - words.mean(-1, keepdim=True)) / (words.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    with_it, without = (random_unit(SITE, WORDS, source_norm=norm, pooled_shift=False) for norm in (True, False))
    expected = read(without, literally, mask)
    torch.testing.assert_close(read(with_it, words, mask), expected)
    assert not expected[2].any()  # no real token


@pytest.mark.parametrize("source", [ViewSpec.map(5, 3, 3), ViewSpec.tokens(1)], ids=str)
def test_maps_and_tokens_of_one_number_are_left_alone(source: ViewSpec) -> None:
    given = torch.randn(2, 5, *(source.grid or (source.width,)), dtype=torch.float64)
    with_it, without = (random_unit(SITE, source, source_norm=norm) for norm in (True, False))
    assert torch.equal(read(with_it, given), read(without, given))


def test_the_papers_unit_has_none() -> None:
    assert not UNITS["mi2p-paper"].build(SITE, WORDS).source_norm
    assert UNITS["mi2p"].build(SITE, WORDS).source_norm


def test_units_of_one_forward_share_it() -> None:
    source = prepare(SourceFeatures(torch.randn(2, 5, 24)), WORDS, torch.float32)
    assert source.normalised() is source.normalised()
    torch.testing.assert_close(source.normalised().tokens, normalised(source.tokens))


@pytest.mark.parametrize("later", ["source_norm", "pooled_shift"])
def test_a_checkpoint_of_before_stays_without_it(later: str, tmp_path: Path) -> None:
    """Files of units that had no such option do not name it: see `tests/golden`."""
    net, pictures = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1)), torch.randn(2, 3, 4, 4)
    me = inject(net, ["0"], source_spec=WORDS, example_inputs=pictures)
    me.save_pretrained(tmp_path / "me")
    config = read_config(tmp_path / "me")
    assert expansion_config_of(config, tmp_path).unit == MI2P()
    del config["unit"]["options"][later]
    assert expansion_config_of(config, tmp_path).unit == MI2P(**{later: False})
    again = load(tmp_path / "me", backbone=nn.Sequential(nn.Conv2d(3, 6, 3, padding=1)))
    assert again.expansion_config.unit == MI2P()
