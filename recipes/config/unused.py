"""Options that were chosen, and that the model takes no notice of."""

from __future__ import annotations

from mi2p_inject.recipes.config.config import Config
from mi2p_inject.recipes.config.presets import PRESETS

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
    idle = [name for name in config.model.system.unused if name in chosen]
    return (f"model {config.model.model!r} takes no notice of {', '.join(idle)}",) if idle else ()
