"""All that decides the shape of an expanded model, besides its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mi2p_inject.core.errors import SelectionError, SourceError
from mi2p_inject.core.registry import closest
from mi2p_inject.core.site import Site, unit_key
from mi2p_inject.core.views import ViewSpec

if TYPE_CHECKING:
    from mi2p_inject.units.base import Unit, UnitConfig

__all__ = ["UNNAMED", "ExpansionConfig", "SourceConfig", "Trainable", "UnitPlace"]

Trainable = Literal["all", "units"]
UNNAMED = ""
"""The name of the source of a model that has one, given without a name."""


@dataclass(frozen=True)
class SourceConfig:
    """One source: what its features are, and which units read it, at which sites."""

    spec: ViewSpec
    unit: UnitConfig
    paths: tuple[str, ...]
    """Paths of the sites at which it has a unit."""


@dataclass(frozen=True)
class UnitPlace:
    """Where one unit stands: its site, and the source that it reads."""

    site: Site
    source: str

    @property
    def key(self) -> str:
        """The unit's key among the expanded model's units: see `unit_key`."""
        return unit_key(self.site.path, self.source)

    @property
    def label(self) -> str:
        """Its name in records: the site's path, behind the source's name where it has one."""
        return f"{self.source}:{self.site.path}" if self.source else self.site.path


@dataclass(frozen=True)
class ExpansionConfig:
    """All that decides the shape of an expanded model, besides its weights: what a checkpoint keeps as JSON."""

    sites: tuple[Site, ...]
    """Each site once, in the order of the backbone's modules, whichever sources have a unit there."""
    sources: Mapping[str, SourceConfig]
    """By name, in the order in which their residuals are added; the only one may be unnamed."""
    num_heads: int
    trainable: Trainable
    strict: bool
    left_out: tuple[str, ...] = ()
    """Default sites without a unit: the model ignores their patches, so a unit there would have no effect."""

    @property
    def places(self) -> tuple[UnitPlace, ...]:
        """One for each unit: site by site, and at a site source by source."""
        return tuple(
            UnitPlace(site, name)
            for site in self.sites
            for name, source in self.sources.items()
            if site.path in source.paths
        )

    @property
    def named(self) -> bool:
        """Whether sources are given by name."""
        return UNNAMED not in self.sources

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of units, each once."""
        return tuple(dict.fromkeys(source.unit.kind for source in self.sources.values()))

    @property
    def unit(self) -> UnitConfig:
        """The units' options, in a model of one source."""
        return self._only().unit

    @property
    def source(self) -> ViewSpec:
        """What the features are, in a model of one source."""
        return self._only().spec

    def build(self, place: UnitPlace) -> Unit:
        """A new unit for a place.

        Raises:
            UnitError: the kind has no form for these views.
        """
        source = self.sources[place.source]
        return source.unit.build(place.site.spec, source.spec, self.num_heads)

    def place(self, path: str, source: str | None = None) -> UnitPlace:
        """Where the unit at a path stands, and of the source of that name where sources have names.

        Raises:
            SelectionError: no unit stands there.
            SourceError: no source has this name, or there are several and none is named.
        """
        name = next(iter(self.sources)) if source is None and len(self.sources) == 1 else source
        if name not in self.sources:
            raise SourceError(
                "which source's unit?" if self.named else "this model has one source, and its source has no name",
                path=path,
                expected=f"one of {', '.join(self.sources)}" if self.named else "a path alone",
                given=repr(source),
                fix=closest(name or "", [*self.sources]) if self.named else "ask for the unit by its path alone",
            )
        at = {one.site.path: one for one in self.places if one.source == name}
        if path not in at:
            raise SelectionError(
                "there is no unit at this path", expected=", ".join(at), given=repr(path), fix=closest(path, [*at])
            )
        return at[path]

    def _only(self) -> SourceConfig:
        if len(self.sources) != 1:
            raise SourceError(
                "this model has several sources, each with its own features and units",
                expected=f"one of {', '.join(self.sources)}",
                given="no name",
                fix="ask for one: expansion_config.sources[name]",
            )
        return next(iter(self.sources.values()))
