"""Batches for the tiny models: pictures, texts with padding, sound. Each maker takes (batch, seed)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
InputMaker = Callable[[int, int], Inputs]

VOCABULARY = 60
PAD, CLS, EOT = 1, 0, VOCABULARY - 1
"""RoBERTa's padding id; every configuration in `models` gives it. The end-of-text id is the largest, as in CLIP."""
TEXT, CLIP_TEXT, PIXELS, SAMPLES, FRAMES, MELS = 12, 10, 64, 6000, 24, 16


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def image(batch: int, seed: int) -> Inputs:
    """An image, positional, as timm and open_clip are called."""
    return (torch.randn(batch, 3, PIXELS, PIXELS, generator=generator(seed)),), {}


def pixel_values(batch: int, seed: int) -> Inputs:
    """An image by name, as transformers is called."""
    return (), {"pixel_values": image(batch, seed)[0][0]}


def small_image(batch: int, seed: int) -> Inputs:
    """Half the size, for transformers, which do not shrink it from stage to stage."""
    return (torch.randn(batch, 3, PIXELS // 2, PIXELS // 2, generator=generator(seed)),), {}


def small_pixel_values(batch: int, seed: int) -> Inputs:
    return (), {"pixel_values": small_image(batch, seed)[0][0]}


def real_tokens(batch: int, length: int) -> Tensor:
    """(B, length) True for real tokens: a full row first, then shorter and shorter ones, three at least."""
    lengths = torch.tensor([max(length - 3 * row, 3) for row in range(batch)])
    return torch.arange(length) < lengths.unsqueeze(1)


def token_ids(batch: int, seed: int, real: Tensor) -> Tensor:
    ids = torch.randint(PAD + 1, EOT, real.shape, generator=generator(seed))
    return ids.masked_fill(~real, PAD)


def text(batch: int, seed: int) -> Inputs:
    """Ids padded on the right, and their mask."""
    real = real_tokens(batch, TEXT)
    return (), {"input_ids": token_ids(batch, seed, real), "attention_mask": real.long()}


def ids(batch: int, seed: int) -> Inputs:
    """Ids padded on the right, positional, without a mask."""
    return (text(batch, seed)[1]["input_ids"],), {}


def text_left(batch: int, seed: int) -> Inputs:
    """Ids padded on the left, as XLNet's tokenizer does."""
    real = real_tokens(batch, TEXT).flip(1)
    return (), {"input_ids": token_ids(batch, seed, real), "attention_mask": real.long()}


def clip_text(batch: int, seed: int) -> Inputs:
    """Ids of the full context length: a text, its end, and zeros after it."""
    real = real_tokens(batch, CLIP_TEXT)
    ids = token_ids(batch, seed, real).masked_fill(~real, 0)
    ids[torch.arange(batch), real.sum(1) - 1] = EOT
    return (ids,), {}


def hf_clip_text(batch: int, seed: int) -> Inputs:
    """The same by name, with the tokenizer's mask."""
    ids = clip_text(batch, seed)[0][0]
    return (), {"input_ids": ids, "attention_mask": real_tokens(batch, CLIP_TEXT).long()}


def wave(batch: int, seed: int) -> Inputs:
    """Sound, the later rows padded with silence, and the mask of the samples."""
    lengths = torch.tensor([SAMPLES - 1000 * min(row, 4) for row in range(batch)])
    real = torch.arange(SAMPLES) < lengths.unsqueeze(1)
    return (), {
        "input_values": torch.randn(batch, SAMPLES, generator=generator(seed)) * real,
        "attention_mask": real.long(),
    }


def spectrogram(batch: int, seed: int) -> Inputs:
    """A log-mel spectrogram."""
    return (), {"input_values": torch.randn(batch, FRAMES, MELS, generator=generator(seed))}
