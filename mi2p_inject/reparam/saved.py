"""The folder of a pathway: JSON + safetensors, written whole or not at all, verified when read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from mi2p_inject.checkpoint.hub import as_path
from mi2p_inject.checkpoint.schema import TENSORS, damaged
from mi2p_inject.checkpoint.tensors import described, without_aliases
from mi2p_inject.checkpoint.write import shards, write_checkpoint
from mi2p_inject.core.errors import CheckpointError, Mi2pError
from mi2p_inject.core.files.json_rules import TEXT, ListOf, MapOf, Rule, fault
from mi2p_inject.core.files.read import read_regular
from mi2p_inject.core.files.seal import sealed

__all__ = ["CONFIG_NAME", "read_config", "save"]

CONFIG_NAME = "pathway_config.json"
FORMAT, VERSION = "mi2p_inject.pathway", 1
MOST_BYTES = 64 * 2**20
_NUMBERS = Rule("a list of pairs of block numbers", lambda value: isinstance(value, list))
_SCHEMA: dict[str, Any] = {
    "weights": ListOf(TEXT),
    "tensors": TENSORS,
    "aliases": MapOf(TEXT),
    "blocks": _NUMBERS,
    "train_auxiliary": Rule("true or false", lambda value: isinstance(value, bool)),
}


def save(model: nn.Module, blocks: Sequence[tuple[int, int]], train_auxiliary: bool, folder: str | Path) -> None:
    """See `Pathway.save_pretrained`.

    Args:
        model: with the auxiliary's weights in it.
        blocks: of the model and of the auxiliary, in pairs.
        train_auxiliary: as `pathway` was given it.
        folder: created if needed.

    Raises:
        CheckpointError: it cannot be written.
    """
    tensors, aliases = without_aliases(model.state_dict())
    files = shards(tensors)
    config = sealed(
        {
            "format": FORMAT,
            "version": VERSION,
            "weights": list(files),
            "tensors": described(tensors),
            "aliases": aliases,
            "blocks": [list(pair) for pair in blocks],
            "train_auxiliary": train_auxiliary,
        }
    )
    write_checkpoint(as_path(folder), CONFIG_NAME, config, files)


def read_config(path: Path) -> dict[str, Any]:
    """The JSON of a saved pathway, verified.

    Raises:
        CheckpointError: not a pathway of ours, or damaged.
    """
    try:
        config = json.loads(read_regular(path, MOST_BYTES).decode("utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            "not a saved pathway",
            expected=f"a folder with {CONFIG_NAME}",
            given=str(path.parent),
            fix="pass the folder that Pathway.save_pretrained wrote",
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, str(error)) from error
    if not isinstance(config, dict) or (config.get("format"), config.get("version")) != (FORMAT, VERSION):
        raise damaged(path, "it is not of our format and version")
    if broken := fault(config, _SCHEMA):
        raise damaged(path, f"{broken.place} is wrong", broken.expected, broken.given)
    if config != sealed(config):
        raise damaged(path, "its text is not what was saved")
    try:
        pairs = all(len(pair) == 2 and all(type(one) is int for one in pair) for pair in config["blocks"])
    except (TypeError, Mi2pError):
        pairs = False
    if not pairs:
        raise damaged(path, "blocks is wrong", "pairs of block numbers")
    return config
