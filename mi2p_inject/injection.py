"""`inject`: select, probe, build, hook. The one line."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from typing_extensions import Unpack

from mi2p_inject.adapters.find import Match, find
from mi2p_inject.errors import AdapterError, InjectionError, InjectionWarning, ProbeError, SelectionError, SourceError
from mi2p_inject.expanded import Blueprint, ExpandedModel, Train
from mi2p_inject.hook import hooked_paths
from mi2p_inject.layout import Layout, describe
from mi2p_inject.loan import SOURCES
from mi2p_inject.probe import Inputs, probe
from mi2p_inject.select import Layers, select
from mi2p_inject.sites import View, default_paths, find_sites
from mi2p_inject.source import Source
from mi2p_inject.source import example_inputs_of as example_inputs_of
from mi2p_inject.units import GateKind, UnitConfig, unit_config
from mi2p_inject.views import ViewSpec

DEFAULT_HEADS = 8


class UnitOptions(TypedDict, total=False):
    """Options of the unit that `inject` takes directly; see `MI2P` for what each means."""

    heads: int | None
    d_k: int
    kernel_size: int
    gate: GateKind | None
    identity: int
    output_projection: bool


def inject(
    model: nn.Module,
    layers: Layers | None = None,
    *,
    source_encoder: nn.Module | None = None,
    source_spec: ViewSpec | None = None,
    unit: str | UnitConfig = "mi2p",
    train: Train = "all",
    view: View = "auto",
    layout: Layout | Mapping[str, Layout] | None = None,
    strict: bool = False,
    example_inputs: Any = None,
    source_example_inputs: Any = None,
    **options: Unpack[UnitOptions],
) -> ExpandedModel:
    """Expand a unimodal model to two modalities: a plug-in unit at each chosen layer, fed by a frozen source encoder.

    The model is not edited, subclassed or copied: forward hooks on its named modules add the units' residuals, and
    `eject()` on the result gives it back as it was. With the default gate the expanded model's output equals the
    model's own, bit for bit, until it is trained.

    Args:
        model: the backbone: a timm, transformers or open_clip model, or any module (then with `example_inputs`).
        layers: where: None for the adapter row's default sites; names, globs (`encoder.layer.*`), compiled regexes,
            indices into the default sites, a list of these, or a callable (path, module) -> bool.
        source_encoder: the pre-trained model of the other modality. It is frozen: eval mode, no gradients.
        source_spec: what the features will be where there is no encoder here, such as `ViewSpec.tokens(768)`.
        unit: a kind ("mi2p"; "mi2p-paper" is the paper's literal form) or a configured unit (`MI2P(...)`).
        train: what trains: "all" (the paper: backbone and units) or "units" (the backbone is frozen).
        view: how patch tokens are seen: "auto" and "map" as a map of channels, "tokens" as tokens.
        layout: the layout of the chosen sites (or of some, by path) where neither a row nor the dry run tells it.
        strict: raise where a source map has another grid than at injection, instead of pooling it.
        example_inputs: an example batch for the backbone: a tensor, a tuple of arguments or a mapping. Needed where no
            row knows the model, useful where images have another size than the model's default.
        source_example_inputs: the same for the source encoder.
        **options: options of the unit: heads, d_k, kernel_size, gate, identity, output_projection.

    Returns:
        The expanded model: `me(images, source=batch)` returns whatever the backbone returns.

    Raises:
        SelectionError: `layers` names nothing, or something the backbone does not have.
        SiteError: a chosen module never fires, fires more than once, or its output is ignored.
        LayoutError: a hidden state cannot be read without guessing.
        SourceError: neither an encoder nor a spec, or both and they disagree.
        UnitError: an unknown unit or option.
        InjectionError: the model is expanded, compiled or in use as a source encoder.
        ProbeError: the dry run failed, or there are no example inputs.

    Source: MI2P (CVPR 2022), section 3.

    Example:
        >>> import timm, torch
        >>> from transformers import BertConfig, BertModel
        >>> from mi2p_inject import inject
        >>> tiny = BertConfig(hidden_size=48, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48)
        >>> text = BertModel(tiny)
        >>> me = inject(timm.create_model("resnet10t", num_classes=5), source_encoder=text)
        >>> [site.path for site in me.sites]
        ['layer1', 'layer2', 'layer3', 'layer4']
        >>> me(torch.randn(2, 3, 64, 64), source={"input_ids": torch.ones(2, 7, dtype=torch.long)}).shape
        torch.Size([2, 5])
    """
    _check_modules(model, source_encoder)
    config = unit_config(unit, dict(options))
    _check_choice("train", train, ("all", "units"))
    _check_choice("view", view, ("auto", "map", "tokens"))
    match = _find(model, layers, example_inputs)
    inputs = example_inputs_of(model, match, example_inputs)
    source = Source(source_encoder, source_example_inputs) if source_encoder is not None else None
    built = _source_spec(source, source_spec)
    defaults = default_paths(model, match)
    if layers is None and not defaults:
        raise SelectionError(
            f"the adapter row {match.adapter.name!r} finds none of its sites in this {type(model).__name__}"
            if match
            else f"no adapter row knows {type(model).__name__}, so it has no default sites",
            expected=" or ".join(match.site_patterns(model)) or "a list of layers" if match else "layers=[...]",
            given="layers=None",
            fix="name the modules to inject at: layers=[...]; `mi2p layers MODEL --all` lists them",
        )
    paths = defaults if layers is None else select(model, layers, defaults, lambda some: _shapes(model, some, inputs))
    check_injectable(model, source_encoder, paths)
    sites, left_out = find_sites(model, paths, match, inputs, view, layout, defaults=layers is None)
    heads = match.adapter.heads if match else DEFAULT_HEADS
    blueprint = Blueprint(tuple(sites), config, built, heads, train, strict, tuple(left_out))
    return ExpandedModel(model, blueprint, source, example_on_meta(inputs))


def example_on_meta(inputs: Inputs) -> Inputs:
    """Example inputs without their content: shapes and dtypes are what the cost table needs later."""
    kept: Inputs = pytree.tree_map_only(Tensor, lambda tensor: tensor.to("meta"), inputs)
    return kept


def _find(model: nn.Module, layers: Layers | None, example_inputs: Any) -> Match | None:
    """The row, if any; a user who names layers and gives inputs needs none, so its doubts do not count then."""
    try:
        return find(model)
    except AdapterError:
        if layers is None or example_inputs is None:
            raise
        return None


def _source_spec(source: Source | None, told: ViewSpec | None) -> ViewSpec:
    if told is not None and not isinstance(told, ViewSpec):
        raise SourceError(
            "source_spec= takes a ViewSpec",
            expected="ViewSpec.tokens(768) or ViewSpec.map(1024, 7, 7)",
            given=repr(told),
            fix="wrap the numbers",
        )
    if source is None and told is None:
        raise SourceError(
            "nothing says what the source is",
            expected="source_encoder=, or source_spec= where features will be given",
            given="neither",
            fix="pass source_encoder=model or source_spec=ViewSpec.tokens(768)",
        )
    if source is None:
        return told  # type: ignore[return-value]
    if told is not None and not told.accepts(source.spec):
        raise SourceError(
            "source_spec contradicts the source encoder",
            expected=str(source.spec),
            given=str(told),
            fix="drop source_spec=",
        )
    return told or source.spec


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InjectionError(
            f"{name}= takes one of a few words",
            expected=" or ".join(map(repr, choices)),
            given=repr(value),
            fix=f"mend {name}=",
        )


def _check_modules(model: nn.Module, source_encoder: nn.Module | None) -> None:
    for what, module in (("model", model), ("source_encoder", source_encoder)):
        if module is not None and not isinstance(module, nn.Module):
            raise InjectionError(
                f"{what} is no module",
                expected="torch.nn.Module",
                given=type(module).__name__,
                fix=f"pass {what}= a model",
            )
        if isinstance(module, ExpandedModel):
            raise InjectionError(
                f"{what} is an expanded model already",
                expected="a unimodal model",
                given=f"an ExpandedModel with sites {', '.join(site.path for site in module.sites)}",
                fix="inject its backbone (me.eject() gives it back), with all the layers you want at once",
            )
    taken = {"source", "source_mask"} & set(_parameters(model.forward))
    if taken:
        raise InjectionError(
            f"the model's own forward has an argument called {', '.join(sorted(taken))}",
            expected="a forward without `source` and `source_mask`, which the expanded model takes",
            given=f"{type(model).__name__}.forward",
            fix="wrap the model in a module whose forward names them otherwise",
        )


def _parameters(function: Any) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # a traced or compiled forward does not tell
        return []


def check_injectable(model: nn.Module, source_encoder: nn.Module | None, paths: Sequence[str]) -> None:
    """Refuse a model in a state that would make units silently useless or wrong; `inject` and `load` both ask.

    Raises:
        InjectionError: compiled, serving as a source encoder, sharing modules with its source, or an ambiguous forward.
    """
    _check_modules(model, source_encoder)
    _check_not_compiled(model, paths)
    if model in SOURCES:
        raise InjectionError(
            f"this {type(model).__name__} is the frozen source encoder of another expanded model",
            expected="a backbone of its own: as a source it must not change",
            given="one model in both roles",
            fix="inject copy.deepcopy(model)",
        )
    if source_encoder is not None:
        own = set(model.modules())
        if any(module in own for module in source_encoder.modules()):
            raise InjectionError(
                "source encoder and backbone share modules",
                expected="two models: one trains, one is frozen",
                given=f"{type(source_encoder).__name__} and {type(model).__name__}",
                fix="pass copy.deepcopy(...) of the source encoder",
            )
        if hooked := hooked_paths(source_encoder):
            raise InjectionError(
                "the source encoder is itself the backbone of an expanded model",
                path=hooked[0],
                expected="a frozen encoder of its own",
                given="one model in both roles",
                fix="pass copy.deepcopy(encoder) made before it was injected",
            )
    if hooked := hooked_paths(model):
        warnings.warn(
            InjectionWarning(
                f"site '{hooked[0]}': this backbone already carries the units of another live expanded model; the two "
                "share its weights and never see each other's units.\n  expected: one expanded model a backbone\n"
                f"  given: a second injection (sites of the first: {', '.join(hooked)})\n"
                "  fix: drop or eject() the first one if it is not wanted"
            ),
            stacklevel=3,
        )


def _check_not_compiled(model: nn.Module, paths: Sequence[str]) -> None:
    """A hook added to a module that was compiled before is ignored silently."""
    for path, module in model.named_modules():
        compiled = getattr(module, "_compiled_call_impl", None) is not None
        if not compiled and not isinstance(module, torch._dynamo.eval_frame.OptimizedModule):
            continue
        inside = [site for site in paths if not path or site == path or site.startswith(f"{path}.")]
        if inside:
            raise InjectionError(
                "the model is compiled already, and would ignore a hook added now",
                path=inside[0],
                expected="a model that has not been compiled",
                given=f"compiled at {path or 'its root'}",
                fix="inject the original model first, then torch.compile(the expanded model)",
            )


def _shapes(model: nn.Module, paths: Sequence[str], inputs: Inputs) -> dict[str, str]:
    """What some modules give, for error messages."""
    try:
        seen, _ = probe(model, paths, inputs, stop=True)
    except ProbeError:
        return {}
    return {path: describe(one.output) for path, one in seen.items() if one.times}
