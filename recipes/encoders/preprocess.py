"""From a picture to pixels and from a text to token ids, as an encoder was pre-trained with; kept as JSON in a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from mi2p_inject.recipes.characters import decodable
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["ImageSpec", "TextSpec"]

_CROP_SCALE = (0.7, 1.0)  # of augmented pictures: the least part of the area that is kept


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
    """

    tokenizer: Any
    max_length: int
    fixed: bool = False

    def __call__(self, texts: list[str]) -> dict[str, Tensor]:
        """``input_ids`` and ``attention_mask``, (B, L) int64; an empty text stands for a missing one."""
        texts = [decodable(text) for text in texts]  # tokenizers refuse half characters
        if self.fixed:
            ids: Tensor = self.tokenizer(texts, context_length=self.max_length)
            return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        encoded = self.tokenizer(texts, padding=True, truncation=True, max_length=self.max_length, return_tensors="pt")
        ids, mask = encoded["input_ids"].long(), encoded["attention_mask"].long()
        if ids.shape[1] == 0:  # a tokenizer without special tokens, and texts without any
            if (padding := self.tokenizer.pad_token_id) is None:
                raise RecipeError(
                    "the tokenizer gives no tokens for empty texts, and has no padding token",
                    fix="give the tokenizer a padding token",
                )
            ids, mask = ids.new_full((len(texts), 1), padding), ids.new_ones((len(texts), 1))
        return {"input_ids": ids, "attention_mask": mask}
