"""Saving an expanded model: which of its tensors, and the JSON that says what they belong to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from mi2p_inject.checkpoint.check import check_units
from mi2p_inject.checkpoint.encoders import encoders_json
from mi2p_inject.checkpoint.hub import as_path
from mi2p_inject.checkpoint.schema import CONFIG_NAME, FORMAT, VERSION, VERSION_OF_NAMED
from mi2p_inject.checkpoint.tensors import check_complete, check_plain, check_unsaved, described, without_aliases
from mi2p_inject.checkpoint.write import shards, write_checkpoint
from mi2p_inject.core.errors import CheckpointError
from mi2p_inject.core.expansion_config import ExpansionConfig
from mi2p_inject.core.files.digest import quick_sums
from mi2p_inject.core.files.seal import sealed
from mi2p_inject.core.weights.four_bits import codes_of, unchanged
from mi2p_inject.core.weights.offload import state_of
from mi2p_inject.sources.encoder import Source

__all__ = ["save"]


def save(
    model: nn.Module,
    backbone: nn.Module,
    expansion: ExpansionConfig,
    folder: str | Path,
    initial: Mapping[str, int | None],
    sources: Mapping[str, Source],
    *,
    max_shard_size: int | str = "5GB",
) -> None:
    """Write an expanded model to a folder: `mi2p_config.json` and `model-<id>.safetensors`.

    The units are always saved, and with trainable="all" all of the backbone. With trainable="units" that of the
    backbone is saved which was trained: what requires gradients, and what has changed since it was injected. Of the
    rest a checksum of every value is kept. The source encoder is never saved: its class and a checksum are.

    Args:
        model: the expanded model: backbone and units.
        backbone: its backbone, as it is inside `model`.
        expansion: what the expanded model was built from.
        folder: created if needed. A checkpoint already there is replaced, atomically; other files are left alone. Where
            another process is saving there, this one waits.
        initial: `quick_sums` of the backbone as it was injected.
        sources: the source encoders that it has, by name.
        max_shard_size: larger models are written as several files of at most this size, in bytes or as "5GB".

    Raises:
        CheckpointError: the folder is a file or cannot be written, the state is not all plain tensors, or something was
            trained that is part of neither backbone nor units. The old checkpoint, if any, is still whole.

    Examples:
        >>> import tempfile, torch
        >>> from mi2p_inject import ViewSpec, inject, load
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
        >>> x = torch.zeros(1, 3, 8, 8)
        >>> me = inject(net, layers="0", source_spec=ViewSpec.tokens(4), example_inputs=x)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     me.save_pretrained(folder)
        ...     net = me.eject()
        ...     me = load(folder, backbone=net)
    """
    folder = as_path(folder)
    _check_units(model)
    with unchanged(model):  # with every name: the expanded model's own leaves tied ones out
        state = nn.Module.state_dict(model)
    check_complete(model, state)
    trained = _trained(backbone, expansion, initial)
    saved = {key: value for key, value in state.items() if key.removeprefix("backbone.") in trained or _of_units(key)}
    known = {f"backbone.{key}": value for key, value in state_of(backbone).items()}  # what is offloaded is said so
    check_plain({key: known.get(key, value) for key, value in saved.items()})
    tensors, aliases = without_aliases(saved)
    files = shards(tensors, max_shard_size)
    config = {
        "format": FORMAT,
        "version": VERSION_OF_NAMED if expansion.named else VERSION,
        "weights": list(files),
        "tensors": described(tensors),
        "aliases": aliases,
        "backbone": _backbone_json(backbone, expansion, trained),
        "encoders": encoders_json(sources),
        **_expansion_json(expansion),
    }
    _check_described(config, backbone, expansion, folder)
    write_checkpoint(folder, CONFIG_NAME, sealed(config), files)


def _check_described(config: Mapping[str, Any], backbone: nn.Module, expansion: ExpansionConfig, folder: Path) -> None:
    """What is written is what `load` will build: somebody may have put units of another kind or size there."""
    try:
        check_units(config, expansion, backbone, folder)
    except CheckpointError as error:
        raise CheckpointError(
            "the units are not those that the model was expanded with, so no checkpoint of them could be loaded",
            path=error.path,
            expected="units of the kind, the sizes and at the sites of the injection",
            given=str(error).splitlines()[0],
            fix="inject again with the units you want, or save me.units.state_dict() yourself",
        ) from error


def _check_units(model: nn.Module) -> None:
    units: Any = model.units
    if units.in_use() is not units:
        raise CheckpointError(
            "the units are inside a wrapper of PEFT (modules_to_save), with a trained copy of them",
            expected="an expanded model without adapters around its units",
            given=f"units in a {type(units).__name__}",
            fix="save the PEFT model itself, or merge first: me = peft_model.merge_and_unload()",
        )


def _trained(backbone: nn.Module, expansion: ExpansionConfig, initial: Mapping[str, int | None]) -> set[str]:
    """Keys of the backbone's state that are saved."""
    if expansion.trainable == "all":
        return set(state_of(backbone)) - codes_of(backbone)
    required = {name for name, one in backbone.named_parameters(remove_duplicate=False) if one.requires_grad}
    now = quick_sums(backbone)
    return required | {key for key, value in now.items() if value is not None and value != initial.get(key)}


def _of_units(key: str) -> bool:
    return key.startswith("units.")


def _backbone_json(backbone: nn.Module, expansion: ExpansionConfig, trained: set[str]) -> dict[str, Any]:
    """What identifies the backbone beside what is saved of it: its class, and what the rest of its state holds."""
    rest = {key: value for key, value in state_of(backbone).items() if key not in trained}
    check_unsaved(rest)
    parameters = backbone.named_parameters() if expansion.trainable == "units" else ()
    return {
        "class": f"{type(backbone).__module__}.{type(backbone).__qualname__}",
        "tensors": described(rest),
        "trained": [name for name, one in parameters if one.requires_grad],
    }


def _expansion_json(expansion: ExpansionConfig) -> dict[str, Any]:
    sources = [
        {
            "name": name,
            "unit": {"kind": one.unit.kind, "options": dataclasses.asdict(one.unit)},
            "source": one.spec.to_json(),
            "paths": list(one.paths),
        }
        for name, one in expansion.sources.items()
    ]
    only = {key: sources[0][key] for key in ("unit", "source")}
    return {
        **({"sources": sources} if expansion.named else only),
        "sites": [site.to_json() for site in expansion.sites],
        "num_heads": expansion.num_heads,
        "trainable": expansion.trainable,
        "strict": expansion.strict,
        "left_out": list(expansion.left_out),
    }
