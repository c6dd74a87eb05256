"""`inject`: select, probe, build, hook. The one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import torch
from torch import nn
from typing_extensions import Unpack

from mi2p_inject.core.errors import InjectionError, SourceError
from mi2p_inject.core.expansion_config import UNNAMED, ExpansionConfig, SourceConfig, Trainable
from mi2p_inject.core.inputs import Inputs, on_meta
from mi2p_inject.core.layout import Layout
from mi2p_inject.core.registry import closest
from mi2p_inject.core.site import View
from mi2p_inject.core.views import ViewSpec
from mi2p_inject.expansion.check_injectable import check_injectable, check_modules
from mi2p_inject.expansion.choose_sites import choose_paths, choose_sites
from mi2p_inject.expansion.expanded_model import ExpandedModel
from mi2p_inject.inspection.patch_effect import Reads
from mi2p_inject.inspection.resolve import resolve
from mi2p_inject.inspection.select import Layers
from mi2p_inject.sources.by_name import by_name, only, set_up
from mi2p_inject.sources.encoder import Reading, Source
from mi2p_inject.units import UnitConfig, ZeroInit, unit_config

__all__ = ["DEFAULT_HEADS", "Plan", "UnitOptions", "inject", "inject_as_planned"]

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
    pooled_shift: bool
    scale: bool
    reduction: int


@torch.inference_mode(False)  # there no gradient says what reaches the output, and units could not be trained
def inject(
    model: nn.Module,
    layers: Layers | Mapping[str, Layers] | None = None,
    *,
    source_encoder: nn.Module | Mapping[str, nn.Module] | None = None,
    source_spec: ViewSpec | Mapping[str, ViewSpec] | None = None,
    unit: str | UnitConfig | Mapping[str, str | UnitConfig] = "mi2p",
    trainable: Trainable = "all",
    view: View = "auto",
    layout: Layout | Mapping[str, Layout] | None = None,
    reads: Reads | None = None,
    strict: bool = False,
    example_inputs: Any = None,
    source_example_inputs: Any = None,
    **options: Unpack[UnitOptions],
) -> ExpandedModel:
    """Expand a unimodal model to two or more modalities: a unit at each chosen layer, fed by a frozen source encoder.

    The model is not edited, subclassed or copied: forward hooks on its named modules add the units' residuals, and
    `eject()` on the result gives it back as it was. With the default start the expanded model's output equals the
    model's own, bit for bit, until it is trained.

    A dict of source encoders makes a model of several named sources: each has units of its own, whose residuals add at
    a site, and each may be missing by itself. `me(x, source={"text": batch, "audio": batch})` then gives sources by
    name.

    Args:
        model: the backbone: a timm, transformers or open_clip model, or any module (then with `example_inputs`).
        layers: where: None for the recommended ones, the last of the adapter's default sites (a third of an image or
            audio model's, a sixth of a text model's); "paper" for all default sites; names, globs
            (`encoder.layer.*`), compiled regexes, indices into the default sites, a list of these, or a callable
            (path, module) -> bool. By source name, where sources have names, for layers of their own.
        source_encoder: the pre-trained model of the other modality. It is frozen: eval mode, no gradients.
            Several: a dict by name, such as ``{"text": bert, "audio": ast}``.
        source_spec: what the features will be where there is no encoder here, such as `ViewSpec.tokens(768)`.
            By name, as the encoders, where sources have names.
        unit: a kind ("mi2p"; "mi2p-paper" is the paper's literal form) or a configured unit (`MI2P(...)`);
            or one of these by source name.
        trainable: what trains: "all" (the paper: backbone and units) or "units" (the backbone is frozen).
        view: how patch tokens are seen: "auto" and "map" as a map of channels, "tokens" as tokens.
        layout: the layout of the chosen sites (or of some, by path) where neither an adapter nor the dry run shows it.
        reads: what you take of the model's output, as a function of it, where your head stands outside the model:
            ``lambda output: output.last_hidden_state[:, 0]``. Sites whose patches do not reach that are then left out,
            or refused where you name them: a head on the class token reads no patch of the last block. None: all of
            the output.
        strict: raise where a source map has another grid than at injection, instead of pooling it.
        example_inputs: an example batch for the backbone: a tensor, a tuple of arguments or a mapping. Needed where no
            adapter knows the model, useful where images have another size than the model's default.
        source_example_inputs: the same for the source encoder; by name where sources have names.
        **options: options of the unit: num_heads, head_dim, kernel_size, zero_init, channel_embedding_dim,
            readout, output_projection, source_norm, pooled_shift.

    Returns:
        The expanded model: `me(images, source=batch)` returns whatever the backbone returns.

    Raises:
        SelectionError: `layers` names nothing, or something the backbone does not have.
        SiteError: a chosen module never fires, fires more than once, or its output is ignored.
        LayoutError: a hidden state cannot be read without guessing.
        SourceError: neither an encoder nor a spec, or both and they disagree; an option by name that names no source.
        UnitError: an unknown unit or option.
        InjectionError: the model is expanded, compiled or in use as a source encoder.
        ProbeError: the dry run failed, there are no example inputs, or `reads` does not fit the model's output.

    Source: MI2P (CVPR 2022), section 3.

    Examples:
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
    encoders, specs = set_up(source_encoder, source_spec)
    check_modules(model, encoders)
    names = list(dict.fromkeys([*encoders, *specs])) or [UNNAMED]
    units = {
        name: unit_config("mi2p" if one is None else one, dict(options))
        for name, one in by_name("unit", unit, names).items()
    }
    _check_choice("trainable", trainable, ("all", "units"))
    _check_choice("view", view, ("auto", "map", "tokens"))
    wanted = by_name("layers", layers, names)
    # who names layers and gives example inputs needs no adapter, so an ambiguous one does not matter then
    named = example_inputs is not None and all(one is not None for one in wanted.values())
    resolved = replace(resolve(model, example_inputs, ambiguous=named), reads=reads)
    examples = only("source_example_inputs", source_example_inputs, names)
    sources = {name: Source(encoder, examples[name]) for name, encoder in encoders.items()}
    features = {name: _source_spec(name, sources.get(name), specs.get(name)) for name in names}
    choices = {name: choose_paths(resolved, one) for name, one in wanted.items()}
    check_injectable(model, encoders, [path for choice in choices.values() for path in choice.paths])
    sites, paths, left_out = choose_sites(resolved, choices, view, layout)
    read = {name: SourceConfig(features[name], units[name], paths[name]) for name in names}
    config = ExpansionConfig(tuple(sites), read, resolved.num_heads, trainable, strict, tuple(left_out))
    return ExpandedModel(model, config, sources, on_meta(resolved.inputs))


@dataclass(frozen=True)
class Plan:
    """What the dry runs of `inject` found out: all that another model of the same code and shapes needs.

    Attributes:
        config: sites, sources and units.
        example: the shapes of the example inputs.
        readings: how each source encoder is read, by name.
    """

    config: ExpansionConfig
    example: Inputs
    readings: Mapping[str, Reading]

    @classmethod
    def of(cls, me: ExpandedModel) -> Plan:
        """The plan by which a model was expanded."""
        readings = {name: source.reading for name, source in me.frozen_sources.items()}
        return cls(me.expansion_config, me.example, readings)


def inject_as_planned(plan: Plan, model: nn.Module, source_encoder: Any, source_example_inputs: Any) -> ExpandedModel:
    """Expand a model of the same code and shapes as the planned one: as `inject` does, without dry runs.

    Args:
        plan: of the other model.
        model: the backbone.
        source_encoder: as for `inject`.
        source_example_inputs: as for `inject`.

    Raises:
        InjectionError: the model is expanded, compiled or in use as a source encoder.
    """
    encoders, _ = set_up(source_encoder, None)
    check_modules(model, encoders)
    check_injectable(model, encoders, [site.path for site in plan.config.sites])
    examples = only("source_example_inputs", source_example_inputs, list(plan.readings))
    sources = {name: Source(one, examples[name], plan.readings[name]) for name, one in encoders.items()}
    return ExpandedModel(model, plan.config, sources, plan.example)


def _source_spec(name: str, source: Source | None, given: ViewSpec | None) -> ViewSpec:
    if given is not None and not isinstance(given, ViewSpec):
        raise SourceError(
            "source_spec= takes a ViewSpec",
            expected="ViewSpec.tokens(768) or ViewSpec.map(1024, 7, 7)",
            given=repr(given),
            fix="wrap the numbers",
        )
    if source is None and given is None:
        raise SourceError(
            f"nothing says what the source {f'{name} ' if name else ''}is",
            expected="source_encoder=, or source_spec= where features will be given",
            given="neither",
            fix="pass source_encoder=model or source_spec=ViewSpec.tokens(768)",
        )
    if source is None:
        return given  # type: ignore[return-value]
    if given is not None and not given.accepts(source.spec):
        raise SourceError(
            f"source_spec contradicts the source encoder{f' of {name}' if name else ''}",
            expected=str(source.spec),
            given=str(given),
            fix="drop source_spec=",
        )
    return given or source.spec


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InjectionError(
            f"{name}={value!r} is not a choice",
            expected=" or ".join(map(repr, choices)),
            given=repr(value),
            fix=closest(str(value), [*choices]),
        )
