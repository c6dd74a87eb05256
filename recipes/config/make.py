"""From options by name to a checked `Config`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mi2p_inject.fusion import FUSIONS, fusion_options
from mi2p_inject.recipes.config.config import GROUPS, OPTIONS, Config
from mi2p_inject.recipes.config.names import closest, instead
from mi2p_inject.recipes.config.option import options_of
from mi2p_inject.recipes.config.presets import PRESETS, preset_values
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.systems import SYSTEMS
from mi2p_inject.recipes.systems.auxiliary import check_auxiliary
from mi2p_inject.recipes.systems.columns import check_columns
from mi2p_inject.units import unit_config

__all__ = ["make_config", "with_options"]


def make_config(*layers: Mapping[str, Any], preset: str = "practical") -> Config:
    """A checked configuration from a preset and what overrides it.

    Args:
        layers: options by name, later ones win; such as a YAML file's, then the command line's. One entry of a mapping
            is named with a dot: ``unit_options.num_heads``.
        preset: "practical" or "paper".

    Raises:
        RecipeError: an unknown preset or option (the closest is named, or the new name of an old one), or a value of
            the wrong type or range.
        UnitError: the unit has no such option.

    Examples:
        >>> config = make_config({"data": "my.csv"}, {"learning_rate": "1e-4"}, preset="paper")
        >>> config.optimisation.learning_rate, config.model.unit
        (0.0001, 'mi2p-paper')
    """
    if preset not in PRESETS:
        raise RecipeError(
            f"no preset is called {preset!r}",
            expected=" or ".join(PRESETS),
            fix=closest(preset, PRESETS),
        )
    given = _joined(layers)
    _check_kinds(given)
    values = {name: OPTIONS[name].read(value) for name, value in {**preset_values(preset, given), **given}.items()}
    groups = {
        group: kind(**{name: values[name] for name in options_of(kind) if name in values})
        for group, kind in GROUPS.items()
    }
    config = Config(**groups)
    if not config.data.data:
        raise RecipeError("no data named", fix="--data my.csv")
    config.model.system.options()  # raises where they do not fit
    check_auxiliary(config.model)
    check_columns(config)
    unit_config(config.model.unit_kind, config.model.options_of_unit())
    _check_fusion(config.model.fusion, config.model.fusion_options)
    return config


def with_options(config: Config, options: Mapping[str, Any]) -> Config:
    """The same configuration with other values for some options, checked; raises what `make_config` raises."""
    return make_config(config.to_json(), options)


def _joined(layers: tuple[Mapping[str, Any], ...]) -> dict[str, Any]:
    """Later layers over earlier ones; ``option.key`` goes into the mapping of its option."""
    given: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            option, dot, key = name.partition(".")
            if option not in OPTIONS:
                raise _unknown(name)
            if not dot:
                given[option] = value
            elif OPTIONS[option].kind is dict and key:
                given[option] = {**(given.get(option) or {}), key: value}
            else:
                raise RecipeError(f"{option} has no entries", given=name, fix=f"write {option}=...")
    return given


def _check_kinds(given: Mapping[str, Any]) -> None:
    """That a fusion is not named as a model, nor a model as a fusion."""
    model, fusion = (str(given.get(name)) for name in ("model", "fusion"))
    if model in FUSIONS and model not in SYSTEMS:
        raise RecipeError(
            f"{model} is a fusion, not a model",
            expected="a model that fuses its branches, such as late-fusion or me-fusion",
            given=f"model={model}",
            fix=f"model=late-fusion with fusion={model}",
        )
    if fusion in SYSTEMS and fusion not in FUSIONS:
        raise RecipeError(
            f"{fusion} is a model, not a fusion",
            expected=", ".join(FUSIONS),
            given=f"fusion={fusion}",
            fix=f"model={fusion}, without fusion",
        )


def _check_fusion(fusion: str, options: Mapping[str, Any]) -> None:
    known = list(fusion_options(fusion))
    for name in options:
        if name not in known:
            raise RecipeError(
                f"the fusion {fusion!r} has no option {name!r}",
                expected=f"some of {', '.join(known)}" if known else "no options",
                given=name,
                fix=closest(name, known),
            )


def _unknown(name: str) -> RecipeError:
    fix = instead(name, OPTIONS) or closest(name, OPTIONS, f"options are {', '.join(OPTIONS)}")
    return RecipeError(f"no option is called {name!r}", fix=fix)
