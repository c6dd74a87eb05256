"""`mi2p layers`: the sites a model offers, as a tree."""

from __future__ import annotations

import json
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree
from torch import nn

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.adapters.find import find
from mi2p_inject.core.errors import ProbeError, UnitError
from mi2p_inject.core.human import human
from mi2p_inject.core.views import ViewSpec
from mi2p_inject.core.zoo import build
from mi2p_inject.inspection.resolve import resolve
from mi2p_inject.recipes.cli.exit_codes import reported
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.report.cost import DEFAULT_TOKENS, count
from mi2p_inject.report.memory import ADAM_STATES, MemoryPlan, plan_memory
from mi2p_inject.report.survey import Candidate, Survey, survey
from mi2p_inject.units import unit_config

__all__ = ["MOST_RANDOM_PARAMETERS", "WIDE", "assumed", "layers", "memory_table", "read_source", "tree"]

MOST_RANDOM_PARAMETERS = 1_000_000_000
"""Up to here random weights are made for a model whose code looks at values: 4 GB."""
WIDE = 240
_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def layers(
    model: Annotated[str, typer.Argument(help="`densenet121`, `bert`, `./folder`, `ViT-B-32/text`, a hub id.")],
    source: Annotated[str, typer.Option(help="What a unit would read: tokens:768 or map:1024x7x7.")] = "",
    unit: Annotated[str, typer.Option(help="The kind of unit.")] = "mi2p",
    every: Annotated[bool, typer.Option("--all", help="Every module that runs, not the default sites only.")] = False,
    meta: Annotated[
        bool, typer.Option("--meta", help="Never make weights, not even for code that looks at values.")
    ] = False,
    memory: Annotated[
        bool, typer.Option("--memory", help="Plan the memory of weights, activations and units.")
    ] = False,
    batch_size: Annotated[int, typer.Option(help="Samples, for --memory.", min=1)] = 1,
    length: Annotated[int, typer.Option(help="Tokens of a text, for --memory; 0: as the costs.", min=0)] = 0,
    dtype: Annotated[
        str, typer.Option(help="The backbone's type, for --memory: float32, bfloat16 or float16.")
    ] = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List where units can be injected into MODEL: path, layout, shape, and what a unit there costs.

    Nothing is downloaded but a configuration, no pre-trained weights are loaded. A star marks the default sites; a
    module that cannot be a site is grey, with the reason.

    MODEL is a timm name; a model type or class of transformers, in its default configuration; an open_clip name with
    its tower; a local folder; a hub id; or `demo`, both encoders of the demo. `timm:`, `transformers:` or `open_clip:`
    before it says whose it is.

    Examples:

    - `mi2p layers densenet121`

    - `mi2p layers bert --source map:1024x7x7`

    - `mi2p layers open_clip:ViT-B-32/visual --all`

    - `mi2p layers llama --memory --batch-size 1 --length 2048 --dtype bfloat16`

    - `mi2p layers ./my-model --json`
    """
    with reported():
        console = Console()
        if not console.is_terminal:
            console.width = WIDE  # a pipe or a file: one line a module
        with console.status("building and looking"):
            loaded = _encoders(model)
            surveys: list[tuple[Survey, MemoryPlan | None]] = []
            for built in loaded or [build(model)]:
                spec = read_source(source) if source else _default_source(built)
                found = _survey(model, built, spec, every, meta or bool(loaded), unit)
                planned = _plan(built, found, unit, batch_size, length, dtype) if memory else None
                surveys.append((found, planned))
        if as_json:
            shown = [{**one.to_json(), **({"memory": plan.to_json()} if plan else {})} for one, plan in surveys]
            typer.echo(json.dumps(shown if len(shown) > 1 else shown[0], indent=1))
            return
        for one, plan in surveys:
            console.print(tree(one))
            if plan:
                console.print(memory_table(plan))
                console.print(Text(assumed(plan), style="italic"))


def _encoders(name: str) -> list[nn.Module]:
    """What ``--vision`` and ``--text`` of a training mean by ``demo`` and ``tiny:...``; none for any other name."""
    if name != "demo" and not name.startswith("tiny:"):
        return []
    from mi2p_inject.recipes.encoders.load import load_encoder

    found: list[nn.Module] = []
    failed: RecipeError | None = None
    modalities: tuple[Modality, ...] = ("image", "text")
    for modality in modalities:
        try:
            found.append(load_encoder(name, modality).model)
        except RecipeError as error:  # most of the tiny ones are of one modality
            failed = error
    if failed is not None and (name == "demo" or not found):
        raise failed
    return found


def _survey(name: str, built: nn.Module, spec: ViewSpec, every: bool, meta: bool, unit: str) -> Survey:
    """The survey of a model without weights; of one with random ones, where it needs them and they are affordable."""
    try:
        return survey(built, spec, every, unit=unit)
    except ProbeError:  # its code looks at values
        if meta or count(built) > MOST_RANDOM_PARAMETERS:
            raise
    return survey(build(name, meta=False), spec, every, unit=unit)


def read_source(text: str) -> ViewSpec:
    """`tokens:768` or `map:1024x7x7` as a spec.

    Raises:
        UnitError: neither.
    """
    kind, _, sizes = text.partition(":")
    numbers = [int(size) for size in sizes.split("x") if size.isascii() and size.isdigit()]
    if (kind, len(numbers), sizes.count("x")) not in (("tokens", 1, 0), ("map", 3, 2)):
        raise UnitError(
            "--source says no view",
            expected="tokens:WIDTH or map:CHANNELSxHEIGHTxWIDTH",
            given=repr(text),
            fix="for instance --source tokens:768, or --source map:1024x7x7",
        )
    return ViewSpec.tokens(numbers[0]) if kind == "tokens" else ViewSpec.map(*numbers)


def tree(found: Survey) -> Tree:
    """A survey as a tree of module paths."""
    cost = f", {human(found.flops)} a sample" if found.flops else ""
    adapter = f"adapter {found.adapter}" if found.adapter else "no adapter"
    root = Tree(Text(f"{found.model}: {found.parameters:,} parameters{cost}; {adapter}", style="bold"), highlight=False)
    branches = {"": root}
    for one in found.candidates:
        parent, name = _branch(branches, one.path)
        branches[one.path] = parent.add(_label(one, name, found.flops))
    attended = (
        f"{DEFAULT_TOKENS} tokens of {found.source.width}" if found.source.kind == "tokens" else str(found.source)
    )
    root.add(Text(f"* default site; costs are one unit's, its source {attended}, one sample", style="italic"))
    if found.recommended:
        root.add(Text(f"recommended, where no layers are named: {', '.join(found.recommended)}", style="italic"))
    return root


def _plan(built: nn.Module, found: Survey, unit: str, batch: int, length: int, dtype: str) -> MemoryPlan:
    """The memory with units at the recommended sites; at all that were found, where none are recommended."""
    if dtype not in _TYPES:
        raise UnitError(
            "--dtype is no type of weights", expected=", ".join(_TYPES), given=repr(dtype), fix="choose one"
        )
    views = {one.path: one.view for one in found.candidates if one.view is not None}
    resolved = resolve(built.to(_TYPES[dtype]))
    sites = {path: views[path] for path in found.recommended or views}
    config = unit_config(unit, {})
    return plan_memory(
        built, resolved.inputs, sites, found.source, config, resolved.num_heads, batch=batch, tokens=length
    )


def memory_table(plan: MemoryPlan) -> Table:
    """A plan's bytes: a line for each unit, and the totals."""
    table = Table("memory", "weights", "gradients", "optimizer", "activations", "total", box=None, pad_edge=False)
    for site in plan.sites:
        gradients, optimizer = site.weights, ADAM_STATES * site.weights
        total = site.weights + gradients + optimizer + site.training
        numbers = (site.weights, gradients, optimizer, site.training, total)
        table.add_row(f"unit at {site.path}", *(human(one, "B") for one in numbers))
    for way, parts in plan.totals().items():
        shown = [human(parts[name], "B") if name in parts else "" for name in ("weights", "gradients", "optimizer")]
        table.add_row(way, *shown, human(parts["activations"], "B"), human(parts["total"], "B"), style="bold")
    return table


def assumed(plan: MemoryPlan) -> str:
    """What a plan takes for granted."""
    dtype = str(plan.dtype).removeprefix("torch.")
    read = f"{plan.tokens} tokens each" if plan.tokens else "inputs of the example's size"
    return (
        f"assumed: {plan.batch} samples, {read}, {plan.source_tokens} source tokens; backbone in {dtype}, units in "
        f"float32; AdamW with {ADAM_STATES} numbers a weight in the weight's type; no dropout, no gradient "
        "checkpointing; without the source encoder and what the backward pass holds for a moment"
    )


def _branch(branches: dict[str, Tree], path: str) -> tuple[Tree, str]:
    """The nearest branch above a path, made where missing, and the name below it."""
    above, _, name = path.rpartition(".")
    if above not in branches:
        parent, own = _branch(branches, above)
        branches[above] = parent.add(Text(own, style="dim"))
    return branches[above], name


def _label(one: Candidate, name: str, whole: int) -> Text:
    label = Text(name, style="bold" if one.default else "")
    label.append(" *" if one.default else "", style="bold green")
    label.append(f"  {one.kind}", style="dim")
    if one.reason:
        return Text(f"{label.plain}: {one.reason}", style="dim")
    share = f" ({one.flops / whole:.1%})" if whole else ""
    label.append(f"  {one.layout}  {one.view}  ")
    said = "".join(f"{column} {words}, " for column, words in one.unit.items())
    label.append(f"{said}{one.parameters:,} parameters, {human(one.flops)}{share}", style="cyan")
    return label


def _default_source(model: nn.Module) -> ViewSpec:
    match = find(model)
    image = match is None or match.adapter.modality in ("image", "video")
    return ViewSpec.tokens(768) if image else ViewSpec.map(1024, 7, 7)
