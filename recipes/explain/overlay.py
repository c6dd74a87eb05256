"""A heat map over a picture, as pixels: for pages, without a figure around it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["overlay"]

_FOR, _AGAINST, _ALPHA = (47, 129, 199), (217, 130, 43), 0.75


def overlay(image: NDArray[np.uint8], heat: NDArray[np.float64], *, smooth: bool) -> Image.Image:
    """The picture in grey, blue where a map is above 0 and orange where it is below, the stronger the larger.

    Args:
        image: (H, W, 3).
        heat: (h, w).
        smooth: between its places; False: its places as windows.

    Examples:
        >>> found = overlay(np.zeros((4, 4, 3), np.uint8), np.array([[1.0, -1.0]]), smooth=False)
        >>> found.size, found.getpixel((0, 0))[2] > 100, found.getpixel((3, 3))[0] > 100
        ((4, 4), True, True)
    """
    height, width = image.shape[:2]
    way = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    stretched = Image.fromarray(heat.astype(np.float32)).resize((width, height), way)
    strength = np.asarray(stretched, dtype=np.float64) / (float(np.abs(heat).max()) or 1.0)
    grey = 60 + 0.75 * image.mean(axis=2, keepdims=True)
    colour = np.where(strength[..., None] > 0, _FOR, _AGAINST)
    alpha = _ALPHA * np.clip(np.abs(strength), 0, 1)[..., None]
    return Image.fromarray(((1 - alpha) * grey + alpha * colour).clip(0, 255).astype(np.uint8))
