"""What can be taken away from what an expanded model reads: words of a text, places of a picture, channels, tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.recipes.explain.sample import BranchEvidence, Sample
from mi2p_inject.recipes.systems.base import OTHER
from mi2p_inject.sources.features import SourceFeatures

__all__ = ["PieceKind", "Pieces", "blur", "lost_logits", "pieces_of", "place_pieces", "word_pieces"]

Floats = NDArray[np.float64]
Kept = NDArray[np.bool_]
PieceKind = Literal["words", "places", "channels", "tokens"]

_AT_ONCE = 64
_LEAST_PLACES, _MOST_PLACES = 5, 8  # along a side
_ROUNDING = 2e-6  # of a logit, 16 times float32's: it may depend on the rest of its batch by so much
_BLUR = 0.1  # standard deviation of the blur, in sides of the picture


@dataclass(frozen=True, eq=False)
class Pieces:
    """The pieces of what one expanded model reads of the other modality, for one sample.

    Attributes:
        kind: words: left out of the text. places: windows of the picture, blurred. channels: of the source's map,
            set to zero. tokens: of a source that gives a picture's tokens, masked.
        modality: what the expanded model's backbone reads.
        evidence: (n,) what each piece adds to the class, to first order, in logits.
        grid: (h, w) of places, which are numbered line by line; else None.
    """

    kind: PieceKind
    modality: Modality
    evidence: Floats
    grid: tuple[int, int] | None
    _sample: Sample
    _features: Callable[[Kept], SourceFeatures]

    def __len__(self) -> int:
        return len(self.evidence)

    @torch.no_grad()
    def logits(self, kept: Kept) -> NDArray[np.float32]:
        """(S, K) with some pieces only; without any word or token the expanded model reads nothing of that source.

        Args:
            kept: (S, n) which.
        """
        found = np.empty((len(kept), self._sample.loaded.run.task.outputs), dtype=np.float32)
        alone = self.kind in ("words", "tokens")
        some = kept.any(axis=1) if alone else np.ones(len(kept), dtype=bool)
        for which, active in ((np.flatnonzero(some), True), (np.flatnonzero(~some), False)):
            for start in range(0, len(which), _AT_ONCE):
                rows = which[start : start + _AT_ONCE]
                features = self._features(kept[rows] if active else np.ones_like(kept[rows]))
                if not active:
                    features = SourceFeatures(features.data, features.data.new_zeros(features.data.shape[:2]).bool())
                logits = self._sample.loaded.logits_given(self.modality, self._sample.batch, features)
                found[rows] = logits.float().cpu().numpy()
        return found

    def lost(self, target: int) -> Floats:
        """(n,) logits of a class that are lost where one piece alone is taken away: measured, not to first order."""
        kept = np.concatenate([np.ones((1, len(self)), dtype=bool), ~np.eye(len(self), dtype=bool)])
        return lost_logits(self.logits(kept)[:, target])


def lost_logits(logits: NDArray[np.float32]) -> Floats:
    """(1 + n,) logits with everything, and without each piece -> (n,) what is lost; 0 where it may be rounding alone.

    A figure's scale is that of its largest number, and would show rounding as large.

    Examples:
        >>> lost_logits(np.array([3.0, 2.0, 2.999999], dtype=np.float32)).tolist()
        [1.0, 0.0]
    """
    wide = logits.astype(np.float64)
    lost = wide[0] - wide[1:]
    return np.where(np.abs(lost) > _ROUNDING * max(1.0, float(np.abs(wide).max())), lost, 0.0)


def pieces_of(sample: Sample, given: BranchEvidence) -> list[Pieces]:
    """All kinds of pieces that an expanded model's evidence orders: words; places, and channels where it attends to
    them; or tokens."""
    if given.modality == "image":
        return [word_pieces(sample, given)]
    if given.found.by_source.dim() != 3:
        return [_tokens(sample, given)]
    found = [place_pieces(sample, given)]
    if given.last is not None and given.last.keys == "channels":
        found.append(_channels(sample, given))
    return found


def word_pieces(sample: Sample, given: BranchEvidence) -> Pieces:
    """Of a picture model: words, by gradient × attention, or gradient × features where its units do not attend."""
    evidence = sample.words.summed(_array(given.by_key))[0]
    loaded, modality = sample.loaded, OTHER[given.modality]

    def features(kept: Kept) -> SourceFeatures:
        texts = [" ".join(word for word, there in zip(sample.words.words, row, strict=True) if there) for row in kept]
        encoded = {name: value.to(loaded.device) for name, value in loaded.text(texts).items()}
        return loaded.sources[given.modality].encode(loaded.encoders[modality].inputs(encoded))

    return Pieces("words", given.modality, evidence, None, sample, features)


def place_pieces(sample: Sample, given: BranchEvidence, *, fine: bool = False) -> Pieces:
    """Of a text model: windows of the picture, as many as the source's map has places, at most 8 along a side; by
    gradient × features of the places.

    Args:
        sample: whose picture.
        given: its evidence; where the source gives tokens, 7 × 7 windows have no evidence (zeros).
        fine: cut the windows of a map of fewer than 5 places along a side into smaller ones.
    """
    by_place, loaded, modality = given.found.by_source, sample.loaded, OTHER[given.modality]
    placed = by_place.dim() == 3
    height, width = (_windows(one, fine) for one in by_place.shape[1:]) if placed else (7, 7)
    grid = (height, width)
    evidence = (
        interpolate(by_place[None].double(), grid, mode="nearest" if fine else "area")[0, 0]
        if placed
        else torch.zeros(grid)
    )
    pixels = sample.pixels.to(loaded.device)
    blurred = blur(pixels)

    def features(kept: Kept) -> SourceFeatures:
        there = torch.from_numpy(kept.reshape(-1, 1, *grid)).to(pixels)
        there = interpolate(there, pixels.shape[1:], mode="nearest")
        seen = {"pixel_values": there * pixels + (1 - there) * blurred}
        return loaded.sources[given.modality].encode(loaded.encoders[modality].inputs(seen))

    return Pieces("places", given.modality, _array(evidence).ravel(), grid, sample, features)


def _windows(places: int, fine: bool) -> int:
    if fine and places < _LEAST_PLACES:
        places *= -(-_LEAST_PLACES // places)
    return min(places, _MOST_PLACES)


def _channels(sample: Sample, given: BranchEvidence) -> Pieces:
    data = given.features.data

    def features(kept: Kept) -> SourceFeatures:
        return SourceFeatures(data * torch.from_numpy(kept).to(data)[:, :, None, None])

    return Pieces("channels", given.modality, _array(given.by_key), None, sample, features)


def _tokens(sample: Sample, given: BranchEvidence) -> Pieces:
    read = given.features

    def features(kept: Kept) -> SourceFeatures:
        mask = torch.from_numpy(kept).to(read.data.device)
        return SourceFeatures(read.data.expand(len(kept), -1, -1), mask if read.mask is None else mask & read.mask)

    return Pieces("tokens", given.modality, _array(given.by_key), None, sample, features)


def blur(pixels: Tensor) -> Tensor:
    """What stands for a place that is taken away: the picture with a Gaussian blur of a tenth of its side."""
    from torchvision.transforms.functional import gaussian_blur

    sigma = _BLUR * min(pixels.shape[-2:])
    blurred: Tensor = gaussian_blur(pixels, [2 * int(2 * sigma) + 1] * 2, [sigma] * 2)
    return blurred


def _array(tensor: Tensor) -> Floats:
    return np.asarray(tensor.detach().double().cpu().numpy())
