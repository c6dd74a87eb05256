"""An expanded model from a checkpoint, on a fresh backbone: what `ExpandedModel.from_pretrained` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from mi2p_inject.checkpoint.check import check_backbone, check_units
from mi2p_inject.checkpoint.encoders import warn_of_other_encoders
from mi2p_inject.checkpoint.hub import local_folder
from mi2p_inject.checkpoint.schema import CONFIG_NAME, expansion_config_of, read_config
from mi2p_inject.checkpoint.tensors import read_weights
from mi2p_inject.core.errors import CheckpointError, InjectionError
from mi2p_inject.core.expansion_config import ExpansionConfig
from mi2p_inject.core.inputs import on_meta
from mi2p_inject.core.registry import closest
from mi2p_inject.core.weights.four_bits import codes_of, state_without_scales
from mi2p_inject.expansion.check_injectable import check_injectable
from mi2p_inject.expansion.running import RunningModel
from mi2p_inject.inspection.resolve import resolve
from mi2p_inject.sources.by_name import only, set_up
from mi2p_inject.sources.encoder import Source

__all__ = ["load_model"]

M = TypeVar("M", bound=RunningModel)


def load_model(
    make: Callable[..., M],
    folder: str | Path,
    *,
    backbone: nn.Module,
    source_encoder: nn.Module | Mapping[str, nn.Module] | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    example_inputs: Any = None,
    source_example_inputs: Any = None,
) -> M:
    """See `ExpandedModel.from_pretrained`, which gives its class as `make`."""
    if not isinstance(backbone, nn.Module):
        raise InjectionError(
            "backbone is no module", expected="torch.nn.Module", given=repr(backbone), fix="pass backbone= a model"
        )
    folder = local_folder(folder, revision=revision, token=token)
    config = read_config(folder)
    expansion_config = expansion_config_of(config, folder / CONFIG_NAME)
    encoders = _encoders(source_encoder, expansion_config)
    names = expansion_config.sources
    check_injectable(backbone, encoders, [site.path for site in expansion_config.sites])
    check_backbone(config, backbone, folder)
    check_units(config, expansion_config, backbone, folder)
    tensors = read_weights(folder, config)
    examples = only("source_example_inputs", source_example_inputs, names)
    sources = {name: Source(encoder, examples[name]) for name, encoder in encoders.items()}
    for name, source in sources.items():
        if not names[name].spec.accepts(source.spec):
            raise CheckpointError(
                f"the checkpoint was made with another source encoder{f' for {name}' if name else ''}",
                expected=str(names[name].spec),
                given=str(source.spec),
                fix="pass the source encoder it was trained with",
            )
    warn_of_other_encoders(config, sources)
    inputs = resolve(backbone, example_inputs, required=False).inputs
    model: Any = make(backbone, expansion_config, sources, on_meta(inputs))
    try:
        _fill(model, tensors)
    except Exception as error:
        model.eject()
        raise CheckpointError(
            f"the backbone did not take its weights: {error}",
            expected="tensors that load_state_dict copies",
            given=str(folder),
            fix="build the backbone anew, as it was when saved; this one may hold some of the weights already",
        ) from error
    for name in config["backbone"]["trained"]:
        backbone.get_parameter(name).requires_grad_(True)
    loaded: M = model
    return loaded


def _encoders(given: Any, config: ExpansionConfig) -> dict[str, nn.Module]:
    """The source encoders by name: those of a checkpoint of named sources come by these names, some or all."""
    encoders, _ = set_up(given, None)
    if strange := [name for name in encoders if name not in config.sources]:
        names = ", ".join(map(repr, config.sources))
        raise CheckpointError(
            "source_encoder= does not fit the checkpoint's sources",
            expected=f"a dict with keys among {names}" if config.named else "one encoder, as its source has no name",
            given=f"a dict with {strange[0]!r}" if strange[0] else type(given).__name__,
            fix=closest(strange[0], list(config.sources)) if config.named and strange[0] else "pass it in that form",
        )
    return encoders


def _fill(model: RunningModel, tensors: Mapping[str, Tensor]) -> None:
    """Load units, and of the backbone what was saved."""
    units, backbone = (
        {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
        for prefix in ("units.", "backbone.")
    )
    types, others = ({one.dtype for one in part.values() if one.is_floating_point()} for part in (units, backbone))
    if len(types) == 1 and types != others:  # units of a type of their own, such as float32 beside a bfloat16 backbone
        model.units.to(types.pop())
    model.units.load_state_dict(units)
    if backbone:  # beside what it has: a quantised module takes its state as a whole or not at all
        in_four_bits = codes_of(model.backbone)  # they stay: `check_backbone` has compared them
        whole = {key: one for key, one in state_without_scales(model.backbone).items() if key not in in_four_bits}
        model.backbone.load_state_dict({**whole, **backbone}, strict=not in_four_bits)
