"""A configuration's model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.systems.base import SystemModel
from mi2p_inject.sources.columns import Columns

if TYPE_CHECKING:
    from mi2p_inject.recipes.config import Config
    from mi2p_inject.recipes.tasks import Labels, Task

__all__ = ["build_system"]


def build_system(
    config: Config,
    encoders: Mapping[Modality, Encoder],
    task: Task,
    targets: Labels | None = None,
    columns: Columns | None = None,
) -> SystemModel:
    """The model that a configuration asks for; new parameters take torch's random numbers.

    Args:
        config: names the system, and has its options and those of the loss.
        encoders: modality -> encoder, for the modalities of the system.
        task: what is learned.
        targets: of the training split, for class weights; None: where nothing is trained.
        columns: what expanded models attend to besides; None: nothing.
    """
    system = config.model.system
    if columns is not None:
        system = system.with_columns(columns)
    model = system.build(encoders, config.model, task, task.loss(config.optimisation, targets))
    model.logit_count = task.outputs
    return model
