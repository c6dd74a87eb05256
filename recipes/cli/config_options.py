"""The options of a training on the command line, made from the fields of `Config`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from mi2p_inject.recipes.cli.paths import typed_path
from mi2p_inject.recipes.config import OPTIONS, Config, make_config, parse_assignments, read_yaml
from mi2p_inject.recipes.config.config import GROUPS
from mi2p_inject.recipes.config.names import instead
from mi2p_inject.recipes.config.option import Option, options_of
from mi2p_inject.recipes.config.read import parse_value

__all__ = [
    "ConfigCommand",
    "ConfigOption",
    "NewDataOption",
    "PresetOption",
    "SetOption",
    "given_options",
    "merged",
    "takes_options",
]

SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any option; repeatable.")]
NewDataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="An option of how data are read, or precision, eval_batch_size, num_workers; repeatable.",
    ),
]
ConfigOption = Annotated[
    Path | None, typer.Option(parser=typed_path, metavar="PATH", help="A YAML file of options; others override it.")
]
PresetOption = Annotated[str, typer.Option(help="practical, or paper: its section 4.2 and Table 2.")]


_METAVARS: dict[type, str] = {str: "TEXT", int: "INTEGER", float: "FLOAT", tuple: "LIST", dict: "MAPPING"}


class ConfigCommand(TyperCommand):
    """A command that answers an option's earlier or other name with its own one, or with what its writer wants."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As its base class; an option that is not there but has an answer ends the command with that answer."""
        known = {name for parameter in self.params for name in (*parameter.opts, *parameter.secondary_opts)}
        for argument in args:
            name = argument.partition("=")[0]
            answer = instead(name, OPTIONS) if name.startswith("--") and name not in known else None
            shown = _as_typed(answer or "")
            if answer and (not shown.startswith("it is called") or shown.split()[-1] in known):
                typer.echo(f"error: no option is called {name}\n  fix: {shown}", err=True)
                raise typer.Exit(1)
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


def takes_options(command: Callable[..., None], names: Iterable[str] = OPTIONS) -> Callable[..., None]:
    """The command with an option for each of the names, which it gets as keyword arguments, None where not given.

    Args:
        command: ends in ``**options``.
        names: of options.
    """
    own = [
        parameter
        for parameter in inspect.signature(command, eval_str=True).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    made = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(OPTIONS[name]))
        for name in names
    ]

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        command(**given)

    with_options.__signature__ = inspect.Signature([*own, *made])  # type: ignore[attr-defined]
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *made)}
    return with_options


def given_options(typed: Mapping[str, Any]) -> dict[str, Any]:
    """What was typed, without what was not, in a form that `make_config` takes.

    Args:
        typed: option -> what stands behind it in the shell; None: not given.

    Raises:
        RecipeError: a number, list or mapping is not YAML.
    """
    plain = {name: value for name, value in typed.items() if value is not None}
    return {
        name: value
        if isinstance(value, bool) or OPTIONS[name].kind is str
        else parse_value(value, f"--{name.replace('_', '-')} {value}")
        for name, value in plain.items()
    }


def merged(config: Path | None, given: Mapping[str, Any], assignments: list[str] | None, preset: str) -> Config:
    """The configuration of a preset, a YAML file, options and --set, each overriding those before."""
    layers = [read_yaml(config)] if config else []
    return make_config(*layers, given, parse_assignments(assignments or []), preset=preset)


def _annotation(one: Option) -> Any:
    group = next(name for name, kind in GROUPS.items() if one.name in options_of(kind))
    default = "" if one.default in (None, "", {}) else one.default
    flag = f"--{one.name.replace('_', '-')}"
    common: dict[str, Any] = {
        "help": f"{one.help[0].upper()}{one.help[1:]}.",
        "rich_help_panel": group.capitalize(),
        "show_default": str(default) if default != "" else False,
    }
    if one.kind is bool:
        switch = f"{flag}/--no-{one.name.replace('_', '-')}"
        return Annotated[bool | None, typer.Option(switch, **common)]
    metavar = "|".join(one.choices) or _METAVARS[one.kind]
    return Annotated[str | None, typer.Option(flag, metavar=metavar, **common)]


def _as_typed(answer: str) -> str:
    """``it is called 'learning_rate'``, or ``write log=wandb``, as the shell takes it."""
    head, quote, name = answer.partition("'")
    if answer.startswith("write ") and "," not in answer:
        option, _, value = answer.removeprefix("write ").partition("=")
        return f"write --set {option}={value}" if "." in option else f"write --{option.replace('_', '-')} {value}"
    return f"{head}--{name.rstrip(quote).replace('_', '-')}" if quote else answer
