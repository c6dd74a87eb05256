"""The model card of a checkpoint: README.md with metadata that the Hugging Face Hub reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from mi2p_inject.core.errors import CheckpointError
from mi2p_inject.core.expansion_config import UNNAMED, ExpansionConfig
from mi2p_inject.core.files.atomic_write import write_file
from mi2p_inject.core.files.read import read_regular

__all__ = ["CARD_NAME", "MARK", "card_text", "model_card", "model_name", "write_card"]

CARD_NAME = "README.md"
MARK = "<!-- Written by mi2p_inject, which replaces it at the next save; without this line it stays as it is. -->"
"""A card without this line is a person's own, and stays."""

_MOST_BYTES = 2**22
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def model_card(
    expansion: ExpansionConfig,
    backbone: nn.Module,
    sources: Mapping[str, nn.Module],
    card: Mapping[str, Any] | None = None,
    place: str = "path/to/this/folder",
) -> str:
    """The card of an expanded model: what it is, how it is loaded, and what is not known of it.

    Args:
        expansion: what it was built from.
        backbone: its backbone.
        sources: its source encoders by name (an empty one, where the source has none); none where features are given.
        card: further metadata, as of `huggingface_hub.ModelCardData`: license, datasets, language, eval_results, …
        place: how it is named when it is loaded.

    Raises:
        CheckpointError: metadata that a model card cannot hold.
    """
    kind, name = type(backbone).__name__, model_name(backbone)
    encoders = {key: type(one).__name__ for key, one in sources.items()}
    bases = [found for found in map(model_name, (backbone, *sources.values())) if found]
    of = f"`{kind}`" + (f" ({name})" if name else "")
    reads = " and ".join(f"`{one}`" for one in encoders.values()) or "features ("
    if not encoders:
        reads += f"{', '.join(str(one.spec) for one in expansion.sources.values())})"
    given = f", {_source_argument(encoders)}" if encoders else ""
    weights = (
        "The backbone's weights are in the checkpoint."
        if expansion.trainable == "all"
        else "The backbone's weights are not in the checkpoint, but for those that were trained: it needs the very "
        "weights that were expanded, which is verified."
    )
    lines = [
        f"# {kind} with a second modality",
        "",
        f"{of}, expanded with {len(expansion.places)} `{'`, `'.join(expansion.kinds)}` units by "
        "[mi2p_inject](https://github.com/mi2p-inject/mi2p_inject): at these layers it also attends to a source, "
        f"{reads}. {weights} Source encoders are never in it.",
        "",
        "## Use",
        "",
        "```python",
        "from mi2p_inject import ExpandedModel",
        "",
        f"backbone = ...  # a {kind}, built as it was before it was expanded",
        *(f"{key} = ...  # the {one} whose features it attends to" for key, one in _variables(encoders).items()),
        f'me = ExpandedModel.from_pretrained("{place}", backbone=backbone{given})',
        "y = me(x, source=batch)  # and me(x) is the backbone alone",
        "```",
        "",
        "## Units",
        "",
        "| layer | reads it as |",
        "|---|---|",
        *(f"| `{site.path}` | {site.spec.kind}, {site.spec.width} wide |" for site in expansion.sites),
        "",
        "## Limits",
        "",
        "- What it was trained on and how well it does is known to who saved it; this card has of it what they gave.",
        "- A source that is missing changes nothing: the output is then the backbone's.",
        "- The licences of the backbone's and the source encoder's weights hold for what was derived from them.",
    ]
    known = {"base_model": bases} if bases else {}
    return card_text("\n".join(lines) + "\n", {**known, "tags": list(expansion.kinds), **(card or {})})


def card_text(body: str, data: Mapping[str, Any]) -> str:
    """A model card from its text and its metadata.

    Args:
        body: Markdown.
        data: as of `huggingface_hub.ModelCardData`.

    Raises:
        CheckpointError: metadata that a model card cannot hold.
    """
    from huggingface_hub import ModelCard, ModelCardData

    tags = ["multimodal", "mi2p", *data.get("tags", ())]
    try:
        fields = {**data, "library_name": "mi2p_inject", "tags": list(dict.fromkeys(tags))}
        if fields.get("eval_results"):
            fields.setdefault("model_name", "model")
        metadata = ModelCardData(**fields).to_yaml()
        return str(ModelCard(f"---\n{metadata}\n---\n\n{MARK}\n\n{body}"))
    except Exception as error:  # yaml's, and huggingface_hub's own
        raise CheckpointError(
            f"the model card does not take card=: {error}",
            expected="fields of huggingface_hub.ModelCardData, such as license or datasets",
            given=", ".join(map(str, data)),
            fix="correct card=",
        ) from error


def write_card(folder: Path, text: str) -> bool:
    """Write the card into a folder, unless there is one that a person wrote; whether it was written.

    Raises:
        CheckpointError: it cannot be written.
    """
    path = folder / CARD_NAME
    try:
        if path.exists() and MARK not in read_regular(path, _MOST_BYTES).decode("utf-8", errors="replace"):
            return False
        write_file(path, lambda file: file.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"cannot write the model card: {error}", given=str(path), fix="make room, or choose another folder"
        ) from error
    return True


def model_name(model: nn.Module) -> str | None:
    """The name that pre-trained weights were loaded by; None where there are none, or where it is a path."""
    name: Any = getattr(getattr(model, "config", None), "_name_or_path", None)
    return name if isinstance(name, str) and _NAME.fullmatch(name) and not Path(name).exists() else None


def _variables(encoders: Mapping[str, str]) -> dict[str, str]:
    """Names of variables for the source encoders."""
    return {f"{name.replace('-', '_')}_encoder".lstrip("_"): one for name, one in encoders.items()}


def _source_argument(encoders: Mapping[str, str]) -> str:
    variables = list(_variables(encoders))
    if UNNAMED in encoders:
        return f"source_encoder={variables[0]}"
    return f"source_encoder={{{', '.join(f'{name!r}: {one}' for name, one in zip(encoders, variables, strict=True))}}}"
