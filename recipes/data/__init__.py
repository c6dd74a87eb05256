"""Data for the recipes: a user's table or folder, or a benchmark, becomes `Samples`.

The way the data goes: a loader (`LOADERS`) reads `Row`s -> `source_table.store` keeps them on disk -> `build_samples`
numbers labels, looks for images, makes splits and notes what a user must know.
"""

from mi2p_inject.recipes.data.images import ImageError as ImageError
from mi2p_inject.recipes.data.images import open_image as open_image
from mi2p_inject.recipes.data.load import LOADERS as LOADERS
from mi2p_inject.recipes.data.load import load_data as load_data
from mi2p_inject.recipes.data.samples import Samples as Samples

__all__ = ["LOADERS", "ImageError", "Samples", "load_data", "open_image"]
