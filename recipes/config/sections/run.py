"""Options of a run: what does not change what is learned, and the seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mi2p_inject.recipes.config.option import NOT_NEGATIVE, POSITIVE, option

__all__ = ["RunConfig"]


@dataclass(frozen=True)
class RunConfig:
    """How it is run: seed, precision, processes, what is kept."""

    seed: int = option(0, "of initial values, shuffling, dropout, augmentation and bootstrap", check=NOT_NEGATIVE)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option("auto", "auto: bf16 on a GPU that has it, else fp32")
    eval_batch_size: int = option(64, "samples a batch where nothing is trained", check=POSITIVE)
    num_workers: int = option(0, "processes that decode pictures; 0: none of their own", check=NOT_NEGATIVE)
    sharding: Literal["none", "fsdp"] = option(
        "none", "of several processes; fsdp: weights, gradients and optimizer state are spread over them (FSDP2)"
    )
    save_steps: int = option(0, "steps between two checkpoints to resume from; 0: one an epoch", check=NOT_NEGATIVE)
    source_cache: str | None = option(
        None, "folder that keeps the frozen encoders' features, shared by runs; default: encode in every step"
    )
    log: Literal["tensorboard", "wandb", "mlflow"] | None = option(
        None, "write a log for this tool; what its own environment variables say holds"
    )
    keep_weights: bool = option(True, "keep the trained weights in the run folder; else its numbers only")
