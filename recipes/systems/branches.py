"""Encoders side by side, each plain or expanded, under a late fusion; one of them under score fusion is unimodal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, final

import torch
from torch import Tensor, nn

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.fusion import ConcatFusion, Fusion, ScoreFusion, build_fusion
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.systems.base import OF_FUSION, OTHER, Batch, FrozenSource, Group, System, SystemModel
from mi2p_inject.recipes.systems.branch import Branch, freeze
from mi2p_inject.sources.columns import Columns

if TYPE_CHECKING:
    from mi2p_inject.recipes.config import ModelConfig
    from mi2p_inject.recipes.tasks import Task

__all__ = ["Branches", "BranchesModel"]


@final
@dataclass(frozen=True)
class Branches(System):
    """One branch a modality, plain or expanded with the other modality's features.

    Attributes:
        image, text: None for no branch.
        columns: what expanded branches attend to besides.
    """

    image: Literal["plain", "expanded"] | None = None
    text: Literal["plain", "expanded"] | None = None
    columns: Columns | None = None

    @property
    def reads(self) -> tuple[Modality, ...]:
        return tuple(modality for modality, kind in self._kinds() if kind is not None)

    @property
    def source_modalities(self) -> tuple[Modality, ...]:
        return tuple(OTHER[modality] for modality, kind in self._kinds() if kind == "expanded")

    @property
    def attends(self) -> bool:
        return bool(self.source_modalities)

    @property
    def unused(self) -> tuple[str, ...]:
        return super().unused if len(self.reads) > 1 else (*super().unused, *OF_FUSION)

    def with_columns(self, columns: Columns) -> System:
        return replace(self, columns=columns) if self.attends else super().with_columns(columns)

    def build(
        self, encoders: Mapping[Modality, Encoder], config: ModelConfig, task: Task, loss: nn.Module
    ) -> SystemModel:
        """As `System.build`. A source is frozen as pre-trained: where its encoder is trained too, it is a copy."""
        widths = [encoders[modality].width for modality in self.reads]
        fusion = build_fusion(  # first: the same values with and without units
            self._fusion(config),
            widths,
            task.outputs,
            multi_label=task.independent,
            options=config.fusion_options if len(self.reads) > 1 else None,
        )
        sources = {  # before anything is injected
            modality: encoders[modality].frozen_copy() if modality in self.reads else encoders[modality]
            for modality in self.source_modalities
        }
        branches = {
            modality: Branch(
                encoders[modality], sources[OTHER[modality]] if kind == "expanded" else None, config, self.columns
            )
            for modality, kind in self._kinds()
            if kind is not None
        }
        frozen: dict[Modality, Any] = {"image": config.vision_freeze, "text": config.text_freeze}
        for modality in branches:
            freeze(encoders[modality], frozen[modality] or ())
        if config.trainable == "units":
            for branch in branches.values():
                if branch.source is None:
                    branch.network.requires_grad_(False)
        return BranchesModel(branches, fusion, loss, config.dropout, *self._own_losses(config, widths, task, fusion))

    def describe(self, config: ModelConfig) -> str:
        fusion = f", {config.fusion} fusion" if len(self.reads) > 1 else ""
        return f"{config.model}{fusion}{', tuned source' if self.source_modalities and config.tuned else ''}"

    def _own_losses(
        self, config: ModelConfig, widths: list[int], task: Task, fusion: Fusion
    ) -> tuple[bool, nn.ModuleList | None]:
        """Whether each branch has a loss of its own, and its classifiers for that; score fusion has them already."""
        score = isinstance(fusion, ScoreFusion)
        usual = score or isinstance(fusion, ConcatFusion)
        wanted = len(widths) > 1 and (usual if config.branch_loss is None else config.branch_loss)
        heads = nn.ModuleList(nn.Linear(width, task.outputs) for width in widths) if wanted and not score else None
        return wanted, heads

    def _fusion(self, config: ModelConfig) -> str:
        return config.fusion if len(self.reads) > 1 else "score"

    def _kinds(self) -> tuple[tuple[Modality, str | None], ...]:
        return (("image", self.image), ("text", self.text))


class BranchesModel(SystemModel):
    """Branches and the fusion on top of them; one branch under score fusion is a linear classifier.

    Args:
        branches: modality -> branch.
        fusion: of their vectors.
        loss: of logits and targets.
        dropout: of the vectors.
        own_losses: add the loss of each branch alone to that of the fusion.
        own_heads: classifiers of each branch alone for that; None: the fusion's.
    """

    def __init__(
        self,
        branches: Mapping[Modality, Branch],
        fusion: Fusion,
        loss: nn.Module,
        dropout: float,
        own_losses: bool = False,
        own_heads: nn.ModuleList | None = None,
    ) -> None:
        super().__init__(loss)
        self.branches = nn.ModuleDict({str(modality): branch for modality, branch in branches.items()})
        self.dropout = nn.Dropout(dropout)
        self.fusion = fusion
        self.own_losses, self.own_heads = own_losses, own_heads

    def outputs(self, batch: Batch, labels: Tensor | None) -> dict[str, Tensor]:
        vectors, present = self._read(batch)
        logits = self.fusion(vectors, present)
        if labels is None:
            return {"logits": logits}
        loss = self.loss(logits, labels)
        if self.own_losses:
            heads = self.fusion.heads if isinstance(self.fusion, ScoreFusion) else self.own_heads or ()
            for head, vector, there in zip(heads, vectors, present, strict=True):
                if there.any():
                    loss = loss + self.loss(head(vector[there]), labels[there])
        return {"loss": loss, "logits": logits}

    def logits(self, batch: Batch) -> Tensor:
        logits: Tensor = self.fusion(*self._read(batch))
        return logits

    def vectors(self, batch: Batch) -> Tensor:
        """Those of all branches side by side."""
        return torch.cat(self._read(batch)[0], dim=-1)

    def _read(self, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
        """The vector of each branch, and which samples it had anything to go by for."""
        read = [branch(batch) for branch in self.branches.values()]
        return [self.dropout(vector) for vector, _ in read], [present for _, present in read]

    def parameter_groups(self) -> dict[str, Group]:
        groups: dict[str, Group] = {f"fusion.{name}": "new" for name, _ in self.fusion.named_parameters()}
        if self.own_heads is not None:
            groups |= {f"own_heads.{name}": "new" for name, _ in self.own_heads.named_parameters()}
        for modality, branch in self._branches():
            groups |= {f"branches.{modality}.{name}": group for name, group in branch.groups().items()}
        return groups

    def sources(self) -> dict[Modality, FrozenSource]:
        found = [branch.frozen_source() for _, branch in self._branches()]
        return {source.encoder.modality: source for source in found if source is not None}

    def _branches(self) -> list[tuple[str, Branch]]:
        return [(modality, branch) for modality, branch in self.branches.items() if isinstance(branch, Branch)]
