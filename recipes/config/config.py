"""The groups of options in one."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from mi2p_inject.recipes.config.option import Option, options_of
from mi2p_inject.recipes.config.sections.answers import AnswersConfig
from mi2p_inject.recipes.config.sections.data import DataConfig
from mi2p_inject.recipes.config.sections.model import ModelConfig
from mi2p_inject.recipes.config.sections.optimisation import OptimisationConfig
from mi2p_inject.recipes.config.sections.run import RunConfig

__all__ = ["GROUPS", "OPTIONS", "Config"]

#: name of a group, a field of `Config` -> its class
GROUPS: dict[str, type] = {
    "data": DataConfig,
    "model": ModelConfig,
    "optimisation": OptimisationConfig,
    "answers": AnswersConfig,
    "run": RunConfig,
}

#: every option by its name, which no two groups share
OPTIONS: dict[str, Option] = {name: one for group in GROUPS.values() for name, one in options_of(group).items()}


@dataclass(frozen=True)
class Config:
    """Everything that decides what `mi2p train` does; the defaults are the practical preset.

    Attributes:
        data: what is read.
        model: what is trained.
        optimisation: how.
        answers: how they are decided and checked.
        run: seed, precision, processes, what is kept.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimisation: OptimisationConfig = field(default_factory=OptimisationConfig)
    answers: AnswersConfig = field(default_factory=AnswersConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def to_json(self) -> dict[str, Any]:
        """All options by name, without their groups, as JSON values; `make_config` reads them back."""
        values = {one.name: getattr(group, one.name) for group in self._groups() for one in fields(group)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def changed(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        usual = Config().to_json()
        return {name: value for name, value in self.to_json().items() if value != usual[name]}

    def _groups(self) -> list[Any]:
        return [getattr(self, name) for name in GROUPS]
