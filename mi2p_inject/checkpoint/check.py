"""Whether a checkpoint fits a backbone, before anything of either is changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mi2p_inject.checkpoint.schema import CONFIG_NAME, damaged
from mi2p_inject.checkpoint.tensors import check_plain, check_unsaved, described
from mi2p_inject.core.errors import CheckpointError, Mi2pError
from mi2p_inject.core.expansion_config import ExpansionConfig
from mi2p_inject.core.weights.offload import state_of

__all__ = ["check_backbone", "check_units"]


def check_backbone(config: Mapping[str, Any], backbone: nn.Module, path: Path) -> None:
    """The backbone is of the class and the shapes that were injected, and holds every value that was not saved.

    Raises:
        CheckpointError: it is another one, or has lazy or meta tensors; or the JSON in `path` contradicts itself.
    """
    saved: Mapping[str, Any] = config["backbone"]
    state = state_of(backbone)
    rest = {key: value for key, value in state.items() if key in saved["tensors"]}
    check_plain({key: value for key, value in state.items() if key not in rest})
    check_unsaved(rest)
    theirs = {**_saved_shapes(config, "backbone."), **{key: one["shape"] for key, one in saved["tensors"].items()}}
    ours = {key: list(getattr(value, "shape", [])) for key, value in state.items()}
    own_class = f"{type(backbone).__module__}.{type(backbone).__qualname__}"
    differing = [key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key)]
    if differing:
        key = differing[0]
        raise _another(saved, f"{key} {theirs.get(key, 'absent')}", f"{key} {ours.get(key, 'absent')}", key)
    if saved["class"] != own_class:
        raise _another(saved, saved["class"], own_class)
    parameters = {name for name, _ in backbone.named_parameters(remove_duplicate=False)}
    if strange := [name for name in saved["trained"] if name not in parameters or name in rest]:
        raise damaged(path / CONFIG_NAME, f"{strange[0]} is not a parameter that it holds")
    now = described(rest)
    if changed := [key for key in rest if now[key] != saved["tensors"][key]]:
        key = changed[0]
        expected = f"the weights it was injected with (trainable='units' does not save them), {key} of SHA-256 "
        given = f"other values in {len(changed)} of {len(rest)} tensors, {key} of SHA-256 "
        raise _another(saved, expected + saved["tensors"][key]["sha256"], given + now[key]["sha256"], key)


def check_units(config: Mapping[str, Any], expansion: ExpansionConfig, backbone: nn.Module, path: Path) -> None:
    """The saved tensors are those of the units that would be built, in name and shape.

    Raises:
        CheckpointError: the units cannot be built for this backbone, or have other tensors.
    """
    try:
        for site in expansion.sites:
            backbone.get_submodule(site.path)
        with torch.device("meta"):
            units = {place.key: expansion.build(place) for place in expansion.places}
    except (Mi2pError, AttributeError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise damaged(path / CONFIG_NAME, str(error)) from error
    expected = {
        f"units.{at}.{key}": list(tensor.shape)
        for at, unit in units.items()
        for key, tensor in unit.state_dict().items()
    }
    given = {key: shape for key, shape in _saved_shapes(config).items() if not key.startswith("backbone.")}
    if expected != given:
        differing = sorted(key for key in expected.keys() | given.keys() if expected.get(key) != given.get(key))
        key = differing[0]
        raise CheckpointError(
            f"the weights do not fit the model described beside them ({len(differing)} tensors differ)",
            path=key,
            expected=str(tuple(expected[key])) if key in expected else "no such tensor",
            given=str(tuple(given[key])) if key in given else "no such tensor",
            fix="the files are not from one save; ask for the checkpoint again",
        )


def _saved_shapes(config: Mapping[str, Any], prefix: str = "") -> dict[str, list[int]]:
    """Shapes of the saved tensors and of those tied to them, by their names without the prefix."""
    shapes = {key: one["shape"] for key, one in config["tensors"].items()}
    shapes |= {alias: shapes.get(kept, [-1]) for alias, kept in config["aliases"].items()}
    return {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}


def _another(saved: Mapping[str, Any], expected: str, given: str, path: str = "") -> CheckpointError:
    return CheckpointError(
        "the checkpoint belongs to another backbone",
        path=path,
        expected=expected,
        given=given,
        fix=f"build the backbone as it was when saved: {saved['class']}, same head, same configuration, same weights",
    )
