"""From a picture to pixels and from a text to token ids, as an encoder was pre-trained with; kept as JSON in a run."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mi2p_inject.recipes.characters import decodable
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["ImageSpec", "TextSpec"]

_CROP_SCALE = (0.7, 1.0)  # of augmented pictures: the least part of the area that is kept


_MAX_SIDE, _MAX_PIXELS = 8192, 2**24  # of a picture that is read, and twice as many before it is cropped


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class ImageSpec:
    """How a picture becomes pixels: timm's data configuration, which fits the other libraries' models too.

    Attributes:
        size: height and width in pixels.
        mean, std: of each colour, on a scale of 0 to 1.
        interpolation: "bicubic", "bilinear", "nearest" or "lanczos".
        crop_pct: size of the crop in parts of the resized picture.
        crop_mode: "center" crops what sticks out, "squash" changes the aspect ratio, "border" pads.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    crop_mode: str = "center"

    def __post_init__(self) -> None:
        """Refuse sizes and statistics with which no picture can be prepared; they may be a stranger's."""
        sized = len(self.size) == 2 and all(type(one) is int and 1 <= one <= _MAX_SIDE for one in self.size)
        cropped = _is_number(self.crop_pct) and 0 < self.crop_pct <= 2
        pixels = self.size[0] * self.size[1] if sized else 0
        if not sized or not cropped or pixels > _MAX_PIXELS * min(1, 2 * self.crop_pct**2):
            raise RecipeError(
                "no picture is prepared in this size",
                expected=f"sides of 1 to {_MAX_SIDE}, and {_MAX_PIXELS:,} pixels, twice that before it is cropped",
                given=f"size={self.size}, crop_pct={self.crop_pct}"[:200],
                fix="correct the model's preprocessing, or copy its folder again",
            )
        if any(len(one) != 3 or not all(map(_is_number, one)) for one in (self.mean, self.std)) or min(self.std) <= 0:
            raise RecipeError(
                "no picture can be normalised so",
                expected="mean and std of three colours, a std above 0",
                given=f"mean={self.mean}, std={self.std}"[:200],
                fix="correct the model's preprocessing, or copy its folder again",
            )

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ImageSpec:
        """The inverse of `to_json`."""
        fields: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in value.items()}
        return cls(**fields)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    def transform(self, augment: bool = False) -> Any:
        """A function PIL picture (RGB) -> (3, H, W) float pixels.

        Args:
            augment: a random crop and a mirrored picture instead of the resized one; torch's random numbers decide.
        """
        if not augment:
            from timm.data import create_transform

            return create_transform(
                input_size=(3, *self.size),
                is_training=False,
                interpolation=self.interpolation,
                mean=self.mean,
                std=self.std,
                crop_pct=self.crop_pct,
                crop_mode=self.crop_mode,
            )
        from torchvision import transforms

        mode = transforms.InterpolationMode(self.interpolation)
        return transforms.Compose(
            [
                transforms.RandomResizedCrop(self.size, _CROP_SCALE, interpolation=mode),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(self.mean, self.std),
            ]
        )

    def blank(self) -> Tensor:
        """What stands for a missing picture: the mean colour everywhere."""
        return torch.zeros(3, *self.size)


@dataclass(frozen=True)
class TextSpec:
    """How texts become token ids.

    Attributes:
        tokenizer: of transformers or of open_clip.
        max_length: most tokens; the rest of a text is cut off.
        fixed: open_clip's: ids of one length, without a mask.
        padded: pad all texts to `max_length`, for a program that takes no other length.
    """

    tokenizer: Any
    max_length: int
    fixed: bool = False
    padded: bool = False

    @property
    def one_length(self) -> bool:
        """Whether all batches have `max_length` tokens."""
        return self.fixed or self.padded

    def __call__(self, texts: list[str]) -> dict[str, Tensor]:
        """``input_ids`` and ``attention_mask``, (B, L) int64; an empty text stands for a missing one."""
        texts = [decodable(text) for text in texts]  # tokenizers refuse half characters
        if self.fixed:
            ids: Tensor = self.tokenizer(texts, context_length=self.max_length)
            return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        padding = "max_length" if self.padded else "longest"
        encoded = self.tokenizer(
            texts, padding=padding, truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        ids, mask = encoded["input_ids"].long(), encoded["attention_mask"].long()
        if ids.shape[1] == 0:  # a tokenizer without special tokens, and texts without any
            if (padding := self.tokenizer.pad_token_id) is None:
                raise RecipeError(
                    "the tokenizer gives no tokens for empty texts, and has no padding token",
                    fix="give the tokenizer a padding token",
                )
            ids, mask = ids.new_full((len(texts), 1), padding), ids.new_ones((len(texts), 1))
        return {"input_ids": ids, "attention_mask": mask}

    def cuts(self, texts: list[str]) -> list[bool]:
        """Whether each text has more tokens than are read: one more would be taken, or the last one be another."""
        more = replace(self, max_length=self.max_length + 1)(texts)
        if self.fixed:
            cut = (self(texts)["input_ids"] != more["input_ids"][:, : self.max_length]).any(1)
        else:
            cut = more["attention_mask"].sum(1) > self.max_length
        return [bool(one) for one in cut]
