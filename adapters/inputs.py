"""Small example inputs for the dry run, family by family: (args, kwargs), batch of two, real shapes, no content."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import Tensor, nn

from mi2p_inject.adapters.adapter import Inputs

__all__ = [
    "FOLDED_PIXELS",
    "SPECTROGRAM_LENGTH",
    "TEXT_LENGTH",
    "argument",
    "attention_mask",
    "clip_hf_text",
    "clip_image",
    "clip_text",
    "downsampled_mask",
    "hf_any",
    "hf_clip_mask",
    "hf_features",
    "hf_image",
    "hf_sound",
    "hf_spectrogram",
    "hf_text",
    "hf_wave",
    "image_channels",
    "main_input",
    "not_padding",
    "timm_image",
    "until_end_of_text",
    "xlnet_mask",
]

TEXT_LENGTH = 16
"""Tokens of an example text: long enough for every architecture's shortest window, short enough to cost nothing."""
SPECTROGRAM_LENGTH = 128
FOLDED_PIXELS = 16
"""Pixels that timm's `SpaceToDepth` makes channels of, before the first convolution."""


def timm_image(model: nn.Module) -> Inputs:
    """An image as a timm model's own configuration asks for it."""
    configuration = getattr(model, "pretrained_cfg", None) or {"input_size": (3, 224, 224)}
    height, width = configuration["input_size"][1:]
    fixed = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if fixed is not None:
        height, width = fixed
    return (torch.zeros(2, image_channels(model), height, width),), {}


def clip_image(model: nn.Module) -> Inputs:
    """An image for an open_clip tower."""
    size = getattr(model, "image_size", 224)
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    return (torch.zeros(2, 3, height, width),), {}


def clip_text(model: nn.Module) -> Inputs:
    """Token ids for an open_clip text tower, always of its full context length."""
    ids = torch.ones(2, int(model.context_length), dtype=torch.long)  # type: ignore[arg-type]
    ids[:, -1] = int(model.vocab_size) - 1  # type: ignore[arg-type]
    return (ids,), {}


def clip_hf_text(model: nn.Module) -> Inputs:
    """Token ids for a text tower of open_clip that is a transformers model: none of them padding."""
    padding: Any = model.config.pad_token_id  # type: ignore[union-attr]
    return (torch.full((2, TEXT_LENGTH), 3 if padding == 2 else 2),), {}


def hf_text(model: nn.Module) -> Inputs:
    """Token ids and their mask for a transformers text model; the last one ends the text, if the model knows an end."""
    end = getattr(getattr(model, "config", None), "eos_token_id", None)
    ids = torch.full((2, TEXT_LENGTH), 2 if end == 1 else 1)
    if isinstance(end, int):
        ids[:, -1] = end
    return (), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def hf_image(model: nn.Module) -> Inputs:
    """Pixel values for a transformers vision model (B, C, H, W), for one of videos (B, frames, C, H, W)."""
    config: Any = model.config
    if not hasattr(config, "image_size"):  # that of the tower or backbone inside
        inner = (getattr(config, name, None) for name in ("vision_config", "backbone_config"))
        config = next((one for one in inner if one is not None), config)
    channels = getattr(config, "num_channels", 3)
    if "spatial_shapes" in inspect.signature(model.forward).parameters:
        return (), _naflex(int(config.num_patches), channels * int(config.patch_size) ** 2)
    size = getattr(config, "image_size", None) or getattr(config, "crop_size", None) or 224
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    frames = getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", None)
    clip = (int(frames),) if frames else ()
    return (), {"pixel_values": torch.zeros(2, *clip, channels, height, width)}


def _naflex(patches: int, width: int) -> dict[str, Any]:
    """Square images as SigLIP 2 reads them: flat patches, which of them are real, and the grid they stand in."""
    side = math.isqrt(patches)
    return {
        "pixel_values": torch.zeros(2, patches, width),
        "pixel_attention_mask": torch.ones(2, patches, dtype=torch.long),
        "spatial_shapes": torch.full((2, 2), side),
    }


def hf_wave(model: nn.Module) -> Inputs:
    """Half a second of sound at 16 kHz."""
    return (), {"input_values": torch.zeros(2, 8000)}


def hf_spectrogram(model: nn.Module) -> Inputs:
    """A log-mel spectrogram (B, frames, mel bins)."""
    config: Any = model.config
    return (), {"input_values": torch.zeros(2, config.max_length, config.num_mel_bins)}


def hf_any(model: nn.Module) -> Inputs:
    """Example inputs for any transformers model, by its main input, and for its decoder where it has one."""
    config: Any = getattr(model, "config", None)
    name = main_input(model)
    makers = {"pixel_values": hf_image, "input_values": hf_sound, "input_features": hf_features}
    args, kwargs = makers.get(name.removesuffix("_videos"), hf_text)(model)
    if name == "pixel_values_videos":
        kwargs[name] = kwargs.pop("pixel_values")
    names = inspect.signature(model.forward).parameters
    if "attention_mask" not in names:
        kwargs.pop("attention_mask", None)
    if "input_features_mask" in names and name == "input_features":
        axis = 2 if _bins_first(model) else 1
        kwargs["input_features_mask"] = torch.ones(2, kwargs[name].shape[axis], dtype=torch.long)
    if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in names:
        kwargs["decoder_input_ids"] = torch.ones(2, TEXT_LENGTH, dtype=torch.long)
    return args, kwargs


def main_input(model: nn.Module) -> str:
    """What a transformers model reads first: its own word for it, where its `forward` has a parameter of that name."""
    names = inspect.signature(model.forward).parameters
    said = str(getattr(model, "main_input_name", "input_ids"))
    known = ("pixel_values", "pixel_values_videos", "input_values", "input_features")
    return said if said in names else next((name for name in known if name in names), said)


def hf_sound(model: nn.Module) -> Inputs:
    """A wave, or a spectrogram where the model's configuration counts mel bins."""
    config: Any = model.config
    is_spectrogram = hasattr(config, "num_mel_bins") and hasattr(config, "max_length")
    return hf_spectrogram(model) if is_spectrogram else hf_wave(model)


def hf_features(model: nn.Module) -> Inputs:
    """Log-mel features: (B, mel bins, frames) for Whisper and its kin, (B, frames, features) for the others."""
    config: Any = model.config
    inner = (value for value in vars(config).values() if hasattr(value, "num_mel_bins"))
    if not hasattr(config, "num_mel_bins"):
        config = next(inner, config)  # the encoder's, inside that of the whole
    bins = getattr(config, "num_mel_bins", None)
    frames = 2 * int(getattr(config, "max_source_positions", 0) or 0) or SPECTROGRAM_LENGTH
    if bins and _bins_first(model):
        return (), {"input_features": torch.zeros(2, bins, frames)}
    width = getattr(config, "feature_projection_input_dim", bins) or bins or 80
    width *= int(getattr(config, "num_stacked_frames", 1))
    width = getattr(getattr(getattr(model, "encoder", model), "input_linear", None), "in_features", width)
    return (), {"input_features": torch.zeros(2, 64, width)}


def _bins_first(model: nn.Module) -> bool:
    """Whether it starts with a convolution over (B, mel bins, frames), as Whisper does."""
    stem = next((part for name in ("encoder", "embedder") if (part := getattr(model, name, None)) is not None), model)
    return hasattr(stem, "conv1")


def image_channels(model: nn.Module) -> int:
    """Input channels of a timm model: those of the first convolution by its configuration, else of its images."""
    configuration: Any = getattr(model, "pretrained_cfg", None) or {}
    name = configuration.get("first_conv")
    first = dict(model.named_modules()).get(name) if isinstance(name, str) else None
    if isinstance(first, nn.Conv2d):
        folded = any(type(module).__name__ == "SpaceToDepth" for module in model.modules())  # TResNet's stem
        return first.in_channels // (FOLDED_PIXELS if folded else 1)
    return int(configuration.get("input_size", (3,))[0])


def argument(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> Any:
    """What a call gave for one parameter of `forward`, by name or by position; None where it gave nothing."""
    if name in kwargs or not args:
        return kwargs.get(name)
    if isinstance(model, torch.jit.ScriptModule):  # its class has no forward to look at
        scripted: Any = model
        names = [one.name for one in scripted.forward.schema.arguments][1:]
    else:
        names = [*inspect.signature(type(model).forward).parameters][1:]
    place = names.index(name) if name in names else len(args)
    return args[place] if place < len(args) else None


def attention_mask(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], features: Tensor) -> Tensor | None:
    """The mask a tokenizer gives; None where the batch has none, as transformers then takes all tokens as real."""
    mask: Tensor | None = argument(model, args, kwargs, "attention_mask")
    return mask


def xlnet_mask(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], features: Tensor) -> Tensor | None:
    """XLNet takes either a tokenizer's mask or its negative, `input_mask`."""
    padding: Tensor | None = argument(model, args, kwargs, "input_mask")
    return attention_mask(model, args, kwargs, features) if padding is None else padding.eq(0)


def until_end_of_text(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], features: Tensor) -> Tensor:
    """The ids of an open_clip tower are padded after the end-of-text token, by default the one of the largest id."""
    ids: Tensor = argument(model, args, kwargs, "text")
    pooling = getattr(model, "pool_type", "argmax")
    if (
        getattr(model, "cls_emb", None) is not None
    ):  # CoCa: a class token joins at the end, and reads what is no padding
        real = ids.ne(int(model.pad_id))  # type: ignore[arg-type]
        return torch.cat([real, torch.ones_like(real[:, :1])], 1)
    if pooling not in ("argmax", "eos"):  # a bidirectional tower, SigLIP for one: nothing marks the end but the padding
        return ids.ne(int(model.pad_id))  # type: ignore[arg-type]
    return _up_to_first(ids, ids.amax(1, keepdim=True) if pooling == "argmax" else model.eos_id)


def not_padding(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], features: Tensor) -> Tensor:
    """open_clip's wrapper around a transformers model makes its mask from the ids itself."""
    ids: Tensor = argument(model, args, kwargs, "x")
    return ids.ne(model.config.pad_token_id)  # type: ignore[union-attr, arg-type]


def hf_clip_mask(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], features: Tensor) -> Tensor:
    """The tokenizer's mask; without one the tokens up to the end of the text, which is all the causal tower reads."""
    mask = attention_mask(model, args, kwargs, features)
    if mask is not None:
        return mask
    ids: Tensor = argument(model, args, kwargs, "input_ids")
    config: Any = model.config
    legacy = config.eos_token_id == 2  # written into the configurations of the first conversions; the model knows
    return _up_to_first(ids, ids.amax(1, keepdim=True) if legacy else config.eos_token_id)


def downsampled_mask(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], features: Tensor
) -> Tensor | None:
    """Wav2Vec2-like encoders: the mask of the samples, carried to the frames that the convolutions leave."""
    mask = attention_mask(model, args, kwargs, features)
    if mask is None:
        return None
    frames: Tensor = model._get_feature_vector_attention_mask(features.shape[1], mask)  # type: ignore[operator]
    return frames


def _up_to_first(ids: Tensor, end: Any) -> Tensor:
    """True up to and with the first end token of each sample; a sample without one is real throughout."""
    is_end = ids.eq(end).long()
    return (is_end.cumsum(1) - is_end).eq(0)
