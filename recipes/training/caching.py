"""The source features of a data set, encoded once and kept on disk: see `mi2p_inject.sources.cache`."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from rich.console import Console
from torch.utils import _pytree as pytree

from mi2p_inject.recipes.config import RunConfig
from mi2p_inject.recipes.data import Samples
from mi2p_inject.recipes.data.samples import present
from mi2p_inject.recipes.encoders.preprocess import ImageSpec
from mi2p_inject.recipes.paths import home_path
from mi2p_inject.recipes.systems import FrozenSource, SystemModel
from mi2p_inject.recipes.systems.inputs import Collator, ImageTextDataset
from mi2p_inject.recipes.training.progress.bars import row_progress
from mi2p_inject.sources.cache import SourceCache
from mi2p_inject.sources.fill_cache import fill

__all__ = ["cache_sources"]


def cache_sources(
    model: SystemModel,
    run: RunConfig,
    samples: Samples,
    console: Console,
    *,
    only: Collection[str] | None = None,
) -> dict[str, SourceCache]:
    """Encode what is not in ``run.source_cache`` yet, for every frozen encoder whose features the model attends to.

    Args:
        model: on the device that shall encode.
        run: says where.
        samples: all splits are encoded; samples without the modality, or with a bad image, are left out.
        console: for progress.
        only: ids of the samples to encode; None: all.

    Returns:
        Modality of a source -> its features.

    Raises:
        SourceError: the folder cannot be written, or has too little room.
    """
    return {modality: _fill(source, run, samples, console, only) for modality, source in model.sources().items()}


def _fill(
    frozen: FrozenSource, run: RunConfig, samples: Samples, console: Console, only: Collection[str] | None
) -> SourceCache:
    encoder = frozen.encoder
    spec = encoder.spec if isinstance(encoder.spec, ImageSpec) else None
    collator = Collator(image=spec, text=None if isinstance(encoder.spec, ImageSpec) else encoder.spec, task=None)
    where: dict[str, tuple[ImageTextDataset, int]] = {}
    for rows in samples.splits.values():
        pictures = ImageTextDataset(rows, spec)
        here = present(rows, encoder.modality)
        asked = [(row, name) for row, name in enumerate(rows["id"][:]) if only is None or name in only]
        where |= {name: (pictures, row) for row, name in asked if here[row]}
    device = next(encoder.model.parameters()).device

    def read(names: list[str]) -> Any:
        batch = encoder.inputs(collator([pictures[row] for pictures, row in (where[name] for name in names)]))
        return pytree.tree_map(lambda tensor: tensor.to(device), batch)

    preprocessing = spec.to_json() if spec else {"max_length": encoder.spec.max_length}  # type: ignore[union-attr]
    with row_progress(console, f"encoding {encoder.modality}s, once") as on_batch:
        return fill(
            home_path(str(run.source_cache)),
            frozen.source,
            list(where),
            read,
            preprocessing=json.dumps(
                {"data": samples.fingerprint, "by": encoder.origin, **preprocessing}, sort_keys=True
            ),
            batch_size=run.eval_batch_size,
            say=lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True),
            on_batch=on_batch,
        )
