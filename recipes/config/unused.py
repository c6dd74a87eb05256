"""Options that were chosen, and that the model takes no notice of."""

from __future__ import annotations

from mi2p_inject.recipes.config.config import Config
from mi2p_inject.recipes.config.presets import PRESETS
from mi2p_inject.recipes.config.sections.model import ModelConfig
from mi2p_inject.recipes.systems.base import OTHER

__all__ = ["unused_notes"]


def unused_notes(config: Config) -> tuple[str, ...]:
    """A line that names them; none where every option counts, or has the value of a preset or its default.

    Examples:
        >>> from mi2p_inject.recipes.config import make_config
        >>> from mi2p_inject.recipes.config.unused import unused_notes
        >>> unused_notes(make_config({"data": "my.csv", "model": "mmbt", "unit": "film"}))
        ("model 'mmbt' takes no notice of unit",)
    """
    chosen = {
        name
        for name, value in config.changed().items()
        if all(name not in preset or value != preset[name] for preset in PRESETS.values())
    }
    idle = [name for name in config.model.system.unused if name in chosen] + _of_no_unit(config.model, chosen)
    return (f"model {config.model.model!r} takes no notice of {', '.join(idle)}",) if idle else ()


def _of_no_unit(model: ModelConfig, chosen: set[str]) -> list[str]:
    """Options of units that no unit of the model gets; one that is named gets all, and refuses what it has not."""
    expanded = [OTHER[source] for source in model.system.source_modalities]
    if not expanded:  # then they are among `System.unused`
        return []
    taken = {name for modality in expanded for name in model.options_of_unit(modality)}
    given = {"zero_init": "zero_init"} if "zero_init" in chosen else {}
    given |= {name: f"unit_options.{name}" for name in model.unit_options}
    return [shown for name, shown in given.items() if name not in taken]
