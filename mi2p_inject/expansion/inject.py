"""`inject`: select, probe, build, hook. The one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from torch import nn
from typing_extensions import Unpack

from mi2p_inject.adapters.recommended import PAPER, recommended
from mi2p_inject.core.errors import (
    InjectionError,
    ProbeError,
    SelectionError,
    SourceError,
)
from mi2p_inject.core.expansion_config import ExpansionConfig, Trainable
from mi2p_inject.core.inputs import Inputs, on_meta
from mi2p_inject.core.layout import Layout, describe
from mi2p_inject.core.site import View
from mi2p_inject.core.views import ViewSpec
from mi2p_inject.expansion.check_injectable import check_injectable, check_modules
from mi2p_inject.expansion.expanded_model import ExpandedModel
from mi2p_inject.inspection.probe import probe
from mi2p_inject.inspection.resolve import ResolvedModel, resolve
from mi2p_inject.inspection.select import Layers, select
from mi2p_inject.inspection.sites import find_sites
from mi2p_inject.sources.encoder import Source
from mi2p_inject.units import UnitConfig, ZeroInit, unit_config

__all__ = ["DEFAULT_HEADS", "UnitOptions", "inject"]

DEFAULT_HEADS = 8


class UnitOptions(TypedDict, total=False):
    """Options of our units that `inject` takes directly; see `MI2P`, `CrossAttention`, `FiLM` and `MMTM`."""

    num_heads: int | None
    head_dim: int
    kernel_size: int
    zero_init: ZeroInit | None
    channel_embedding_dim: int
    readout: int
    output_projection: bool
    source_norm: bool
    scale: bool
    reduction: int


def inject(
    model: nn.Module,
    layers: Layers | None = None,
    *,
    source_encoder: nn.Module | None = None,
    source_spec: ViewSpec | None = None,
    unit: str | UnitConfig = "mi2p",
    trainable: Trainable = "all",
    view: View = "auto",
    layout: Layout | Mapping[str, Layout] | None = None,
    strict: bool = False,
    example_inputs: Any = None,
    source_example_inputs: Any = None,
    **options: Unpack[UnitOptions],
) -> ExpandedModel:
    """Expand a unimodal model to two modalities: a plug-in unit at each chosen layer, fed by a frozen source encoder.

    The model is not edited, subclassed or copied: forward hooks on its named modules add the units' residuals, and
    `eject()` on the result gives it back as it was. With the default start the expanded model's output equals the
    model's own, bit for bit, until it is trained.

    Args:
        model: the backbone: a timm, transformers or open_clip model, or any module (then with `example_inputs`).
        layers: where: None for the recommended ones, the last of the adapter's default sites (a third of an image or
            audio model's, a sixth of a text model's); "paper" for all default sites; names, globs
            (`encoder.layer.*`), compiled regexes, indices into the default sites, a list of these, or a callable
            (path, module) -> bool.
        source_encoder: the pre-trained model of the other modality. It is frozen: eval mode, no gradients.
        source_spec: what the features will be where there is no encoder here, such as `ViewSpec.tokens(768)`.
        unit: a kind ("mi2p"; "mi2p-paper" is the paper's literal form) or a configured unit (`MI2P(...)`).
        trainable: what trains: "all" (the paper: backbone and units) or "units" (the backbone is frozen).
        view: how patch tokens are seen: "auto" and "map" as a map of channels, "tokens" as tokens.
        layout: the layout of the chosen sites (or of some, by path) where neither an adapter nor the dry run shows it.
        strict: raise where a source map has another grid than at injection, instead of pooling it.
        example_inputs: an example batch for the backbone: a tensor, a tuple of arguments or a mapping. Needed where no
            adapter knows the model, useful where images have another size than the model's default.
        source_example_inputs: the same for the source encoder.
        **options: options of the unit: num_heads, head_dim, kernel_size, zero_init, channel_embedding_dim,
            readout, output_projection.

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
        ['layer4']
        >>> me(torch.randn(2, 3, 64, 64), source={"input_ids": torch.ones(2, 7, dtype=torch.long)}).shape
        torch.Size([2, 5])
    """
    check_modules(model, source_encoder)
    config = unit_config(unit, dict(options))
    _check_choice("trainable", trainable, ("all", "units"))
    _check_choice("view", view, ("auto", "map", "tokens"))
    # who names layers and gives example inputs needs no adapter, so an ambiguous one does not matter then
    resolved = resolve(model, example_inputs, ambiguous=layers is not None and example_inputs is not None)
    source = Source(source_encoder, source_example_inputs) if source_encoder is not None else None
    spec = _source_spec(source, source_spec)
    defaults = layers is None or (layers == PAPER and not hasattr(model, PAPER))
    paths = _default_paths(resolved) if layers is None or defaults else _named_paths(resolved, layers)
    check_injectable(model, source_encoder, paths)
    sites, left_out = find_sites(resolved, paths, view, layout, defaults)
    if layers is None and resolved.match is not None:
        sites = list(recommended(sites, resolved.match.adapter.modality))
    expansion_config = ExpansionConfig(
        tuple(sites), config, spec, resolved.num_heads, trainable, strict, tuple(left_out)
    )
    return ExpandedModel(model, expansion_config, source, on_meta(resolved.inputs))


def _named_paths(resolved: ResolvedModel, layers: Layers) -> list[str]:
    model = resolved.model
    return select(model, layers, resolved.default_paths, lambda some: _shapes(model, some, resolved.inputs))


def _default_paths(resolved: ResolvedModel) -> list[str]:
    model, match = resolved.model, resolved.match
    if not resolved.default_paths:
        raise SelectionError(
            f"the adapter {match.adapter.name!r} finds none of its sites in this {type(model).__name__}"
            if match
            else f"no adapter matches {type(model).__name__}, so it has no default sites",
            expected=" or ".join(match.site_patterns(model)) or "a list of layers" if match else "layers=[...]",
            given="no layers named",
            fix="name the modules to inject at: layers=[...]; `mi2p layers MODEL --all` lists them",
        )
    return list(resolved.default_paths)


def _source_spec(source: Source | None, given: ViewSpec | None) -> ViewSpec:
    if given is not None and not isinstance(given, ViewSpec):
        raise SourceError(
            "source_spec= takes a ViewSpec",
            expected="ViewSpec.tokens(768) or ViewSpec.map(1024, 7, 7)",
            given=repr(given),
            fix="wrap the numbers",
        )
    if source is None and given is None:
        raise SourceError(
            "nothing says what the source is",
            expected="source_encoder=, or source_spec= where features will be given",
            given="neither",
            fix="pass source_encoder=model or source_spec=ViewSpec.tokens(768)",
        )
    if source is None:
        return given  # type: ignore[return-value]
    if given is not None and not given.accepts(source.spec):
        raise SourceError(
            "source_spec contradicts the source encoder",
            expected=str(source.spec),
            given=str(given),
            fix="drop source_spec=",
        )
    return given or source.spec


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InjectionError(
            f"{name}= takes one of a few words",
            expected=" or ".join(map(repr, choices)),
            given=repr(value),
            fix=f"correct {name}=",
        )


def _shapes(model: nn.Module, paths: Sequence[str], inputs: Inputs) -> dict[str, str]:
    """What some modules give, for error messages."""
    try:
        seen, _ = probe(model, paths, inputs, stop=True)
    except ProbeError:
        return {}
    return {path: describe(one.output) for path, one in seen.items() if one.times}
