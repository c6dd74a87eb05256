"""The table of units is open: kinds of other distributions train, describe themselves, save and load like ours."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import PICTURES, WORDS, complains, net, token_features
from third_party import installed
from torch import Tensor, nn

from mi2p_inject import MI2P, ExpandedModel, ViewSpec, inject, load
from mi2p_inject.core.errors import CheckpointError, UnitError
from mi2p_inject.report.survey import survey
from mi2p_inject.sources.prepared import PreparedSource
from mi2p_inject.units import UNITS, Unit, UnitConfig, unit_config


def with_unit(unit: str | UnitConfig, **options: Any) -> ExpandedModel:
    return inject(net(), layers="0", source_spec=WORDS, example_inputs=PICTURES, unit=unit, **options)


def trained(me: ExpandedModel) -> torch.Tensor:
    """Its output after one step."""
    optimizer = torch.optim.SGD(me.units.parameters(), 0.1)
    me(PICTURES, source=token_features(2)).square().sum().backward()
    optimizer.step()
    return me(PICTURES, source=token_features(2))


def test_a_unit_of_another_distribution_trains_saves_and_loads(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    with installed(tmp_path / "site"):
        assert "nudge" in list(UNITS)
        me = with_unit("nudge", strength=2.0)
        before = me(PICTURES)
        assert torch.equal(me(PICTURES, source=token_features(2)), before)
        after = trained(me)
        assert not torch.equal(after, before)
        assert "strength" in me.summary()
        assert "2.0" in me.summary()
        me.save_pretrained(tmp_path / "saved")
        again = load(tmp_path / "saved", backbone=net())
        assert torch.equal(again(PICTURES, source=token_features(2)), after)
        found = survey(net(), WORDS, every=True, example_inputs=PICTURES, unit="nudge")
        assert found.candidates[0].unit == {"strength": "1.0"}
    assert "nudge" not in UNITS
    with complains(CheckpointError, "unknown unit 'nudge'", "install the distribution"):
        load(tmp_path / "saved", backbone=net())


def test_names_are_read_without_importing_anything(tmp_path: Path) -> None:
    with installed(tmp_path):
        assert "nudge" in UNITS
        assert isinstance(UNITS["mi2p"], MI2P)
        assert "third_party_kinds" not in sys.modules


@pytest.mark.parametrize(
    ("line", "asked", "words"),
    [
        ("mi2p = third_party_kinds:NUDGE", "mi2p", "two units share a name"),
        ("nudge = third_party_kinds:NUDGE\nnudge = third_party_kinds:NUMBER", "nudge", "two units share a name"),
        ("nudge = third_party_kinds:NUMBER", "nudge", "entry point 'nudge' gives something that is no unit"),
        ("nudge = third_party_kinds:Nudge", "nudge", "entry point 'nudge' gives something that is no unit"),
        ("nudge = third_party_kinds:NOWHERE", "nudge", "entry point 'nudge' cannot be loaded"),
        ("nudge = no_such_module_at_all:NUDGE", "nudge", "entry point 'nudge' cannot be loaded"),
        ("push = third_party_kinds:NUDGE", "push", "does not know the kind 'nudge'"),
        ("nudge = third_party_kinds:NUDGE", "nugde", "did you mean 'nudge'"),
    ],
)
def test_a_broken_entry_point_is_named(tmp_path: Path, line: str, asked: str, words: str) -> None:
    with installed(tmp_path, f"[mi2p_inject.units]\n{line}\n"), complains(UnitError, words):
        with_unit(asked)


def test_a_broken_entry_point_troubles_nobody_else(tmp_path: Path) -> None:
    with installed(tmp_path, "[mi2p_inject.units]\nnudge = no_such_module_at_all:NUDGE\n"):
        with_unit("mi2p")


@dataclass(frozen=True)
class Local(UnitConfig):
    """A kind made in a notebook."""

    option: Any = None
    name: str = "local"

    @property
    def kind(self) -> str:
        return self.name

    def build(self, site: ViewSpec, source: ViewSpec, default_heads: int = 8) -> Unit:
        return MI2P().build(site, source, default_heads)


def test_a_unit_made_in_a_notebook_is_loaded_once_it_is_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = with_unit(Local(option=3))
    after = trained(me)
    me.save_pretrained(tmp_path)
    with complains(CheckpointError, "unknown unit 'local'", "UNITS.register"):
        load(tmp_path, backbone=net())
    monkeypatch.setattr(UNITS, "entries", dict(UNITS.entries))
    UNITS.register("local", Local())
    again = load(tmp_path, backbone=net())
    assert again.expansion_config.unit == Local(option=3)
    assert torch.equal(again(PICTURES, source=token_features(2)), after)
    with complains(UnitError, "share a name", "local"):
        UNITS.register("local", Local())


def test_what_a_checkpoint_could_not_give_back_is_refused_at_once() -> None:
    with complains(UnitError, "the option option of the unit 'local'", "kept in a checkpoint"):
        with_unit(Local(option=(1, 2)))
    with complains(UnitError, "two classes of units are of the kind 'mi2p'"):
        with_unit(Local(name="mi2p"))
    with complains(UnitError, "takes a name or a configured unit"):
        with_unit(MI2P)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("old", "new"),
    [("heads", "num_heads"), ("d_k", "head_dim"), ("identity", "channel_embedding_dim"), ("gate", "zero_init"),
     ("train", "trainable")],
)  # fmt: skip
def test_another_word_names_the_option(old: str, new: str) -> None:
    with complains(UnitError, f"no option '{old}'", f"{old} is called {new}"):
        unit_config("mi2p", {old: 4})
    with pytest.raises(UnitError) as raised:  # a kind without the new option either
        unit_config(Local(), {old: 4})
    assert ("is called" in str(raised.value)) == (old == "train")


@pytest.mark.parametrize(("option", "unit"), [("scale", "film"), ("reduction", "mmtm"), ("readout", "mi2p")])
def test_an_option_of_another_kind_names_it(option: str, unit: str) -> None:
    other = "cross-attention"
    with complains(UnitError, f"the unit '{other}' has no option '{option}'", f"unit='{unit}', or leave it out"):
        unit_config(other, {option: 1})


def test_a_unit_describes_itself() -> None:
    seven = MI2P(num_heads=8).build(ViewSpec.map(4, 14, 14), WORDS)
    assert seven.describe() == {"heads": "7 (asked 8, 196 numbers)"}
    assert MI2P().build(ViewSpec.map(4, 8, 8), WORDS, 4).describe() == {"heads": "4"}
    assert "num_heads=7" in repr(seven)


RESIDUALS: dict[str, Callable[[Tensor], Any]] = {
    "one row for all": lambda full: full[:1],
    "one pixel for all": lambda full: full[:, :, :1, :1],
    "vectors": lambda full: full.mean((2, 3)),
    "a tuple": lambda full: (full,),
    "nothing": lambda full: None,
}


@dataclass(frozen=True)
class Odd(UnitConfig):
    """A kind whose unit gives something else than a residual of the view's shape, or is no such unit at all."""

    gives: str = ""

    @property
    def kind(self) -> str:
        return "odd"

    def build(self, site: ViewSpec, source: ViewSpec, default_heads: int = 8) -> Unit:
        if self.gives == "a plain module":
            return nn.Linear(2, 2)  # type: ignore[return-value]
        unit = OddUnit(self.gives, site, source)
        if self.gives == "no parameter":
            unit.shift = None
        elif self.gives == "a lazy parameter":
            unit.shift = nn.LazyLinear(site.width)
        elif self.gives == "integers":
            unit.shift.weight = nn.Parameter(unit.shift.weight.int(), requires_grad=False)
            unit.shift.bias = None
        return unit


class OddUnit(Unit):
    def __init__(self, gives: str, site: ViewSpec, source: ViewSpec) -> None:
        super().__init__(site, source)
        self.gives, self.shift = gives, nn.Linear(source.width, site.width)

    def forward(self, view: Tensor, source: PreparedSource) -> Tensor:
        full = self.shift(source.pooled())[:, :, None, None].expand_as(view)
        found: Tensor = RESIDUALS[self.gives](full)
        return found


@pytest.mark.parametrize("gives", RESIDUALS)
def test_a_residual_of_another_shape_is_refused_and_not_broadcast(gives: str) -> None:
    me = with_unit(Odd(gives))
    with complains(UnitError, "site '0'", "residual of its view", "2, 6, 8, 8", "expand_as"):
        me(PICTURES, source=token_features(2))
    assert me(PICTURES).isfinite().all()


@pytest.mark.parametrize("gives", ["a plain module", "no parameter", "a lazy parameter", "integers"])
def test_what_can_be_no_unit_is_refused_when_it_is_built(gives: str) -> None:
    backbone = net()
    with complains(UnitError, "site '0'", "'odd'"):
        inject(backbone, layers="0", source_spec=WORDS, example_inputs=PICTURES, unit=Odd(gives))
    assert not any(module._forward_hooks for module in backbone.modules())
    found = survey(net(), WORDS, every=True, example_inputs=PICTURES, unit=Odd(gives))
    assert "'odd' gives no unit" in found.candidates[0].reason
