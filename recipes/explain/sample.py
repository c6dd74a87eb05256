"""One sample that is explained, and the evidence for its answer in each expanded model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.core.expansion_config import UNNAMED
from mi2p_inject.explain import Evidence, SiteAttention, evidence
from mi2p_inject.recipes.characters import decodable
from mi2p_inject.recipes.explain.loaded import Batch, Loaded
from mi2p_inject.recipes.explain.words import Words, words_of
from mi2p_inject.recipes.systems.base import OTHER
from mi2p_inject.recipes.systems.columns import Cells
from mi2p_inject.sources.features import SourceFeatures

__all__ = ["BranchEvidence", "Sample"]


@dataclass(frozen=True, eq=False)
class BranchEvidence:
    """The evidence for a class in one expanded model.

    Attributes:
        modality: what its backbone reads.
        features: what it was given of the other modality.
        found: the evidence.
        last: the last site that attends; None where none does.
    """

    modality: Modality
    features: SourceFeatures
    found: Evidence
    last: SiteAttention | None

    @property
    def by_key(self) -> Tensor:
        """(keys,) gradient × attention over all sites; gradient × features (by token) where no unit attends."""
        by_site = [one[0].sum((0, 1)) for one in self.found.by_attention.values()]
        return torch.stack(by_site).sum(0) if by_site else self.found.by_source[0]


@dataclass(frozen=True, eq=False)
class Sample:
    """A picture and a text as a run reads them.

    Attributes:
        loaded: the run.
        pixels: (3, H, W).
        text: as given, without blanks around it.
        words: of the text.
        batch: of this sample alone.
        cells: of columns; None: there are none.
    """

    loaded: Loaded
    pixels: Tensor
    text: str
    words: Words
    batch: Batch
    cells: Cells | None = None

    @classmethod
    def of(cls, loaded: Loaded, picture: Image.Image | Tensor, text: str, cells: Cells | None = None) -> Sample:
        """A sample of an open picture, or of its pixels; `cells` are of the columns that the model reads.

        Raises:
            RecipeError: the text has no word that the model reads.
        """
        text = decodable(text).strip()
        pixels = picture if isinstance(picture, Tensor) else loaded.pixels(picture)
        return cls(loaded, pixels, text, words_of(text, loaded.text), loaded.batch([(pixels, text)], [cells]), cells)

    def evidence(self, modality: Modality, target: int) -> BranchEvidence:
        """What the expanded model of a modality takes from the other one for a class."""
        loaded, named = self.loaded, self.loaded.expanded[modality].expansion_config.named
        features = loaded.source_of(modality, self.batch)
        found = evidence(
            loaded.expanded[modality],
            features,
            lambda given: loaded.logits_given(modality, self.batch, given)[:, target],
            OTHER[modality] if named else UNNAMED,
        )
        last = list(found.attention.values())[-1] if found.attention else None
        return BranchEvidence(modality, features, found, last)
