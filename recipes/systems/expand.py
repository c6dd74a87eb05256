"""An encoder, expanded with another one as its source. The dry runs of a pair happen once in a process."""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.utils import _pytree as pytree

from mi2p_inject.adapters.recommended import PAPER
from mi2p_inject.expansion.expanded_model import ExpandedModel
from mi2p_inject.expansion.inject import Plan, inject, inject_as_planned
from mi2p_inject.inspection.resolve import resolve
from mi2p_inject.recipes.encoders.encoder import Encoder, Expansion
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.systems.columns import COLUMNS, cells_batch, cells_inputs
from mi2p_inject.sources.columns import ColumnEncoder, Columns

if TYPE_CHECKING:
    from mi2p_inject.recipes.config import ModelConfig

__all__ = ["expand", "expansion_of"]

_MOST = 64
_PLANS: OrderedDict[str, Plan] = OrderedDict()
"""Of the latest pairs: a table trains each of them with several seeds, and a run that is read back was built before."""


def expand(encoder: Encoder, source: Encoder, config: ModelConfig, columns: Columns | None) -> nn.Module:
    """The model of an encoder with units.

    Args:
        encoder: its model becomes the backbone.
        source: a frozen encoder of the other modality.
        config: the units' options.
        columns: of a table, as a further source.

    Raises:
        RecipeError, InjectionError: see `inject`.
    """
    modality = encoder.modality
    layers = _sites(encoder.model, config.vision_layers if modality == "image" else config.text_layers)
    unit, options = config.unit_kind, config.options_of_unit()
    if (before := encoder.expansion) is not None:
        layers, unit, options = list(before.layers), before.kind, dict(before.options)
    encoders: Any = source.model
    examples: Any = source.inputs(source.example())
    if columns is not None:
        encoders = {source.modality: encoders, COLUMNS: ColumnEncoder(columns)}
        examples = {source.modality: examples, COLUMNS: cells_inputs(cells_batch(columns, [None, None]))}
    example = encoder.inputs(encoder.example())
    chosen = (layers, unit, sorted(options.items()), config.trainable, columns, encoder.pooling)
    key = "\n".join([*map(_code_and_shapes, (encoder, source)), _shapes(example), _shapes(examples), repr(chosen)])
    if (plan := _PLANS.get(key)) is not None:
        _PLANS.move_to_end(key)
        return inject_as_planned(plan, encoder.model, encoders, examples)
    me = inject(
        encoder.model,
        layers,
        source_encoder=encoders,
        unit=unit,
        trainable=config.trainable,
        reads=(lambda output: encoder.vector(output, {})) if modality == "image" and before is None else None,
        example_inputs=example,
        source_example_inputs=examples,
        **options,
    )
    _PLANS[key] = Plan.of(me)
    if len(_PLANS) > _MOST:
        _PLANS.popitem(last=False)
    return me


def expansion_of(me: ExpandedModel) -> Expansion:
    """How a model was expanded; all its sources have the same units at the same sites, as `expand` makes them."""
    source = next(iter(me.expansion_config.sources.values()))
    return Expansion(source.paths, source.unit.kind, asdict(source.unit))


def _code_and_shapes(encoder: Encoder) -> str:
    """All that a dry run depends on: how the model was built, its modules and settings, its tensors.

    A model on the meta device plans for no other: less may be known of it.
    """
    model = encoder.model
    settings = getattr(model, "config", None)
    tensors = [
        (name, str(one.dtype), one.is_meta, *one.shape) for name, one in model.state_dict(keep_vars=True).items()
    ]
    return f"{json.dumps(encoder.origin, sort_keys=True, default=repr)}\n{settings}\n{model}\n{tensors}"


def _shapes(inputs: Any) -> str:
    return str([(str(one.dtype), *one.shape) for one in pytree.tree_leaves(inputs)])


def _sites(model: nn.Module, layers: tuple[str | int, ...] | None) -> list[str | int] | str | None:
    """The layers as `inject` takes them; ``"2/4"`` is the second quarter of the default sites."""
    if layers is None:
        return None
    if layers == (PAPER,):
        return PAPER
    sites: list[str | int] = []
    for layer in layers:
        which, slash, of = str(layer).partition("/")
        if not (slash and which.isdigit() and of.isdigit()):
            sites.append(layer)
            continue
        count, place, parts = len(resolve(model, required=False).default_paths), int(which), int(of)
        if not 1 <= place <= parts <= count:
            raise RecipeError(
                f"layers {layer!r}: the {count} default sites have no such fraction",
                expected=f"1/n to n/n with n at most {count}",
                fix="give another fraction, or names of layers: mi2p layers MODEL",
            )
        sites += range(count * (place - 1) // parts, count * place // parts)
    return sites
