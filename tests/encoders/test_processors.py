"""Image processors of transformers in the words of timm: the same pixels, or a refusal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from mi2p_inject.recipes.encoders.transformers_encoder import processor_spec
from mi2p_inject.recipes.errors import RecipeError


@pytest.mark.parametrize(
    "processor",
    [
        transformers.ConvNextImageProcessor(size={"shortest_edge": 112}),
        transformers.ConvNextImageProcessor(size={"shortest_edge": 384}),
        transformers.PoolFormerImageProcessor(size={"shortest_edge": 112}, crop_size=100),
        transformers.LevitImageProcessor(size={"shortest_edge": 112}, crop_size=112),
        transformers.DeiTImageProcessor(size={"height": 128, "width": 128}, crop_size=112),
        transformers.ViTImageProcessor(size={"height": 112, "width": 112}, resample=0),
        transformers.ViTImageProcessor(size={"height": 112, "width": 112}, rescale_factor=1 / 127.5),
        transformers.EfficientNetImageProcessor(size={"height": 112, "width": 112}),
        transformers.EfficientNetImageProcessor(
            size={"height": 112, "width": 112}, rescale_factor=1 / 127.5, rescale_offset=True, include_top=False
        ),
    ],
    ids=lambda processor: type(processor).__name__,
)
def test_pixels_of_processors_with_steps_of_their_own(processor: Any) -> None:
    y, x = np.mgrid[:150, :200]
    smooth = np.stack([y / 150, x / 200, (np.sin(x / 15) * np.cos(y / 15) + 1) / 2], -1)
    picture = Image.fromarray((smooth * 255).astype(np.uint8))
    ours = processor_spec(processor, None).transform()(picture)
    theirs = torch.as_tensor(np.asarray(processor(picture, return_tensors="np")["pixel_values"][0]))
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().mean() < 0.02 * theirs.std()


def test_the_nearest_pixel_is_a_way_to_resize() -> None:
    assert processor_spec(transformers.ViTImageProcessor(resample=0), None).interpolation == "nearest"


def test_a_processor_that_exchanges_colours_is_refused() -> None:
    with pytest.raises(RecipeError, match="MobileViTImageProcessor prepares colours") as error:
        processor_spec(transformers.MobileViTImageProcessor(size={"shortest_edge": 40}, crop_size=32), None)
    assert "fix: " in str(error.value)
