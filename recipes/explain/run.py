"""`explain_run`: what a trained run attends to for one picture and text."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.expansion.expanded_model import ExpandedModel
from mi2p_inject.explain import Evidence, effective_count, evidence, token_maps
from mi2p_inject.recipes.characters import decodable
from mi2p_inject.recipes.config.names import closest
from mi2p_inject.recipes.data import open_image
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.encoders.preprocess import ImageSpec, TextSpec
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.explain.groups import channel_groups
from mi2p_inject.recipes.explain.result import BranchExplanation, Explanation
from mi2p_inject.recipes.explain.words import Words, words_of
from mi2p_inject.recipes.saving.saved import SavedRun, collator_of
from mi2p_inject.recipes.systems import SystemModel
from mi2p_inject.recipes.systems.base import OTHER
from mi2p_inject.recipes.systems.inputs import Collator, Item
from mi2p_inject.recipes.training.train import quiet
from mi2p_inject.sources.features import SourceFeatures

__all__ = ["Loaded", "explain_run", "load_expanded"]

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Loaded:
    """A run's model with what makes its inputs.

    Attributes:
        run: the run.
        model: in eval mode.
        image, text: the preprocessing.
        expanded: what the backbone reads -> expanded model.
        encoders: by modality.
        collator: items -> batch.
    """

    run: SavedRun
    model: SystemModel
    image: ImageSpec
    text: TextSpec
    expanded: Mapping[Modality, ExpandedModel]
    encoders: Mapping[Modality, Encoder]
    collator: Collator

    def pixels(self, picture: Image.Image) -> Tensor:
        """(3, H, W) as the model reads a picture."""
        return cast(Tensor, self.image.transform()(picture))

    def batch(self, items: list[tuple[Tensor | None, str]]) -> Batch:
        """Pictures' pixels (None: missing) and texts (empty: missing) as a batch."""
        rows: list[Item] = [{"id": None, "pixels": pixels, "text": text, "label": None} for pixels, text in items]
        return dict(self.collator(rows))

    @torch.no_grad()
    def probabilities(self, batch: Batch) -> NDArray[np.float64]:
        """(B, K), as `mi2p predict` shows them."""
        logits = self.model(**batch)["logits"].float().cpu().numpy()
        return self.run.task.answers(logits, self.run.decision)[1]


def load_expanded(run: SavedRun) -> Loaded:
    """A run's model, if some of it is expanded.

    Raises:
        RecipeError: it reads one modality only or is not expanded, or the run kept no weights.
    """
    quiet()
    model, encoders = run.model()
    expanded: dict[Modality, ExpandedModel] = {}
    for me in (one for one in model.modules() if isinstance(one, ExpandedModel)):
        for modality, frozen in model.sources().items():
            if frozen.source is me.frozen_source:
                expanded[OTHER[modality]] = me
    if not expanded:
        raise RecipeError(
            f"model {run.config.model.model!r} has no expanded model, so nothing attends to another modality",
            expected="a run of an expanded model, such as me-vision, me-text or me-fusion",
            given=run.config.model.model,
            fix="mi2p train --model me-vision ...",
        )
    collator = collator_of(run.config.model.system, encoders, run.task)
    image, text = encoders["image"].spec, encoders["text"].spec
    if not isinstance(image, ImageSpec) or not isinstance(text, TextSpec):
        raise RecipeError(
            "an explanation needs an image and a text encoder",
            expected="both",
            given=f"{type(image).__name__}, {type(text).__name__}",
            fix="explain a run of both",
        )
    return Loaded(run, model, image, text, expanded, encoders, collator)


def explain_run(
    run: SavedRun | Loaded,
    image: str | os.PathLike[str] | Image.Image,
    text: str,
    target: str | None = None,
) -> Explanation:
    """What a trained run takes from the other modality for one sample.

    Args:
        run: the run, or `load_expanded` of it.
        image: a file or an open picture.
        text: a text with a word or more.
        target: the class that the evidence is about; None: the likeliest one.

    Raises:
        RecipeError: the run is not expanded, the image cannot be opened, the text is empty, or there is no such class.
    """
    picture = None if image is None else open_image(image, on_bad="error")
    if picture is None or not (text and text.strip()):
        raise RecipeError(
            "an explanation shows what one modality takes from the other: it needs both",
            expected="an image and a text",
            given="no image" if picture is None else "no text",
            fix="give --image and --text",
        )
    loaded = run if isinstance(run, Loaded) else load_expanded(run)
    classes = loaded.run.task.classes
    if target is not None and target not in classes:
        raise RecipeError(
            f"there is no class {target!r}", expected=", ".join(classes), given=target, fix=closest(target, classes)
        )
    text, pixels = decodable(text).strip(), loaded.pixels(picture)
    words, batch = words_of(text, loaded.text), loaded.batch([(pixels, text)])
    whole, no_text, no_image = loaded.probabilities(loaded.batch([(pixels, text), (pixels, ""), (None, text)]))
    number = classes.index(target) if target is not None else int(np.argmax(whole))
    reads = loaded.run.config.model.system.modalities
    without = {"text": float(no_text[number]), "image": float(no_image[number])}
    return Explanation(
        image=_shown(pixels, loaded.image),
        words=words.words,
        target=classes[number],
        probabilities={name: float(one) for name, one in zip(classes, whole, strict=True)},
        without={name: one for name, one in without.items() if name in reads},
        branches=tuple(_branch(loaded, modality, batch, number, words) for modality in loaded.expanded),
    )


def _branch(loaded: Loaded, modality: Modality, batch: Batch, target: int, words: Words) -> BranchExplanation:
    me, other = loaded.expanded[modality], OTHER[modality]
    with torch.no_grad():
        features = me.encode(loaded.encoders[other].inputs(batch))

    def run(given: SourceFeatures) -> Tensor:
        more = {f"{other}_source": given.data}
        if given.mask is not None:
            more[f"{other}_source_mask"] = given.mask
        logits: Tensor = loaded.model(**batch, **more)["logits"]
        return logits[:, target]

    found = evidence(me, features, run)
    shared: dict[str, Any] = {"modality": modality, "unit": me.expansion_config.unit.kind}
    last = list(found.attention)[-1] if found.attention else None
    if last is not None:
        spread = float(effective_count(found.attention[last].weights).mean())
        shared |= {"site": last, "spread": spread, "keys": found.attention[last].weights.shape[-1]}
    else:
        shared |= {"site": None, "spread": None, "keys": None}
    of_branch = _text_model if modality == "text" else _picture_model
    return BranchExplanation(**shared, **of_branch(found, last, features, words))


def _text_model(found: Evidence, last: str | None, features: SourceFeatures, words: Words) -> dict[str, Any]:
    shown: dict[str, Any] = {"word_attention": None, "rest_attention": 0.0, "rest_evidence": 0.0}
    shown |= {"word_maps": None, "word_evidence": None, "evidence_map": None}
    if found.by_source.dim() == 3:
        shown["evidence_map"] = _array(found.by_source[0])
    if last is None or found.attention[last].weights.shape[2] != len(words.of_token):
        return shown
    by_token = sum(one[0].sum((0, 2)) for one in found.by_attention.values())
    evidence_of, rest = words.summed(_array(by_token))
    shown |= {"word_evidence": evidence_of, "rest_evidence": float(rest)}
    maps = token_maps(found.attention[last], above_even(found.attention[last].weights), features.data)
    if maps is not None:
        shown["word_maps"] = words.averaged(_array(maps[0]))
    return shown


def _picture_model(found: Evidence, last: str | None, features: SourceFeatures, words: Words) -> dict[str, Any]:
    shown: dict[str, Any] = {"word_attention": None, "rest_attention": 0.0, "word_maps": None, "evidence_map": None}
    by_token = found.by_source[0]
    if found.by_attention:
        by_token = sum(one[0].sum((0, 1)) for one in found.by_attention.values())  # type: ignore[assignment]
    evidence_of, rest = words.summed(_array(by_token))
    shown |= {"word_evidence": evidence_of, "rest_evidence": float(rest)}
    if last is None:
        return shown
    attention, real = found.attention[last], len(words.of_token)
    attended, rest = words.summed(_array(attention.weights[0].mean((0, 1)))[:real])
    shown |= {"word_attention": attended, "rest_attention": float(rest)}
    maps = token_maps(attention, above_even(attention.weights), features.data)
    if maps is not None:
        shown["word_maps"] = words.summed(_array(maps[0])[:real])[0]
        places = token_maps(attention, found.by_attention[last], features.data)
        if places is not None:
            shown["evidence_map"] = _array(places[0].sum(0) * attention.weights.shape[1])
    if attention.queries == "channels" and attention.view is not None and attention.view.dim() == 4:
        shown["groups"] = channel_groups(attention, words)
    return shown


def above_even(weights: Tensor) -> Tensor:
    """What of attention (B, heads, queries, keys) is more than even attention over the keys that any query reads."""
    real = (weights > 0).any(-2, keepdim=True).sum(-1, keepdim=True).clamp_min(1)
    return (weights - 1 / real).clamp_min(0)


def _shown(pixels: Tensor, spec: ImageSpec) -> NDArray[np.uint8]:
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (spec.mean, spec.std))
    shown = ((pixels * std + mean).clamp(0, 1) * 255).round().byte()
    return np.asarray(shown.permute(1, 2, 0).numpy())


def _array(tensor: Any) -> NDArray[np.float64]:
    return np.asarray(tensor.detach().double().cpu().numpy())
