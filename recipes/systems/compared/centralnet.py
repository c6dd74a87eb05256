"""CentralNet: a network that reads the levels of two unimodal networks, which it leaves as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from mi2p_inject.adapters.adapter import Modality
from mi2p_inject.adapters.pool import pool
from mi2p_inject.core.errors import Mi2pError
from mi2p_inject.core.inputs import Inputs, as_inputs
from mi2p_inject.core.site import Site
from mi2p_inject.inspection.resolve import ResolvedModel, resolve
from mi2p_inject.inspection.sites import IgnoredPatchesError, examine
from mi2p_inject.recipes.encoders.encoder import Encoder
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.systems.base import Batch, SystemModel
from mi2p_inject.recipes.systems.compared.base import Compared, ComparedModel, freeze_encoders
from mi2p_inject.recipes.systems.compared.options import check_least

if TYPE_CHECKING:
    from mi2p_inject.recipes.config import ModelConfig
    from mi2p_inject.recipes.tasks import Task

__all__ = ["CentralNet", "CentralNetModel", "Levels"]

_BOTH: tuple[Modality, ...] = ("image", "text")


@final
@dataclass(frozen=True)
class CentralNet(Compared):
    """Two unimodal classifiers and a central network on the levels of both.

    Its levels are our reading for pre-trained encoders: the last sites of equal parts of the default sites of each.

    Source: Vielzeuf et al., CentralNet: a Multilayer Approach for Multimodal Fusion
    (https://arxiv.org/abs/1808.07275).

    Attributes:
        levels: how many levels are read.
        project: bring the vectors of a level to one width by learned layers instead of the authors' zero-padding.
        beta: weight of each unimodal classifier's loss beside the central one's.
    """

    levels: int = 4
    project: bool = False
    beta: float = 1.0

    def __post_init__(self) -> None:
        check_least("levels", self.levels, 1)
        check_least("beta", self.beta, 0)

    def build(
        self, encoders: Mapping[Modality, Encoder], config: ModelConfig, task: Task, loss: nn.Module
    ) -> SystemModel:
        model = CentralNetModel(encoders, self, task.outputs, loss, config.dropout)
        freeze_encoders(encoders, config)
        return model


class Levels(nn.Module):
    """An encoder that also gives the pooled hidden states of some levels; it writes nothing back.

    Args:
        encoder: any with default sites.
        levels: how many: the last site of each of so many equal parts of the default sites.

    Attributes:
        widths: of each level's vector.

    Raises:
        RecipeError: it has fewer sites, or the tokens of one are not those of the text.
    """

    def __init__(self, encoder: Encoder, levels: int) -> None:
        super().__init__()
        self.network = encoder.model
        self._encoder = encoder
        self._resolved, sites = _sites(encoder)
        if len(sites) < levels:
            raise RecipeError(
                f"{encoder.name} has {len(sites)} default sites",
                expected=f"at least {levels}, one a level",
                given=", ".join(site.path for site in sites) or "none",
                fix="lower system_options.levels, or name another encoder",
            )
        self._sites = [sites[len(sites) * (level + 1) // levels - 1] for level in range(levels)]
        self.widths = [site.spec.width for site in self._sites]
        if not any(parameter.is_meta for parameter in self.network.parameters()):
            with torch.no_grad():
                self(encoder.example())

    def forward(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """The encoder's vector (B, width), and each level's (B, widths[i]): the mean over a map or the patches, or
        tokens pooled as the encoder's own last ones are, before any pooler of its own."""
        found: dict[str, Tensor] = {}
        args, kwargs = as_inputs(self._encoder.inputs(batch))
        handles = [
            self.network.get_submodule(site.path).register_forward_hook(_Read(self, site, (args, kwargs), found))
            for site in self._sites
        ]
        try:
            output = self.network(*args, **kwargs)
        finally:
            for handle in handles:
                handle.remove()
        return self._encoder.vector(output, batch), [found[site.path] for site in self._sites]

    def pooled(self, hidden: Tensor, inputs: Inputs) -> Tensor:
        """One vector a sample of a map or of tokens.

        Args:
            hidden: of a site.
            inputs: of the encoder, (args, kwargs); its adapter knows which tokens are real.

        Raises:
            RecipeError: the tokens are not those of the text.
        """
        if hidden.dim() == 4:
            return hidden.mean((2, 3))
        readout = self._resolved.match.adapter.readout if self._resolved.match else None
        mask = readout.mask(self._resolved.inner, *inputs, hidden) if readout and readout.mask else None
        if mask is None and self._encoder.modality == "text":
            raise RecipeError(
                f"the levels of {self._encoder.name} cannot be read: it changes the length of a text inside",
                expected="a token of each level for each of the text",
                given=f"{hidden.shape[1]} tokens",
                fix="name another --text",
            )
        return pool(hidden, self._encoder.pooling or "mean", mask)


class _Read:
    """A forward hook that pools one site's output."""

    def __init__(self, levels: Levels, site: Site, inputs: Inputs, found: dict[str, Tensor]) -> None:
        self.levels, self.site, self.inputs, self.found = levels, site, inputs, found

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        self.found[self.site.path] = self.levels.pooled(self.site.layout.view(output, self.site.path), self.inputs)


class CentralNetModel(ComparedModel):
    """Unimodal vectors v_i, t_i of levels i = 1 .. L, and the central ones ``c_1 = f_1(a v_1 + b t_1)``,
    ``c_i = f_i(a_i v_i + b_i t_i + g_i c_{i-1})``, f a linear layer and ReLU, a, b and g learned numbers, 1 at first.

    The narrower vector of a level is padded with zeros. The answer is a linear classifier on c_L. Each encoder has a
    linear classifier of its own; ``loss = L_C + beta (L_image + L_text)``. A missing modality: its terms are left out,
    and so is the sample in its classifier's loss.

    Args:
        encoders: any image encoder and any text encoder with default sites.
        system: the options.
        outputs: K.
        loss: of logits and targets.
        dropout: before each classifier.
    """

    def __init__(
        self, encoders: Mapping[Modality, Encoder], system: CentralNet, outputs: int, loss: nn.Module, dropout: float
    ) -> None:
        super().__init__(encoders, loss)
        self.image, self.text = (Levels(encoders[modality], system.levels) for modality in _BOTH)
        self.beta = system.beta
        pairs = list(zip(self.image.widths, self.text.widths, strict=True))
        self.widths = [max(pair) for pair in pairs]
        self.projections = nn.ModuleList(
            nn.ModuleDict({one: nn.Linear(own, wide) for one, own in zip(_BOTH, pair, strict=True)})
            for pair, wide in zip(pairs, self.widths, strict=True)
            if system.project
        )
        self.scales = nn.ParameterList(torch.ones(2 if level == 0 else 3) for level in range(system.levels))
        following = [*self.widths[1:], self.widths[-1]]
        self.central = nn.ModuleList(nn.Linear(a, b) for a, b in zip(self.widths, following, strict=True))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.widths[-1], outputs)
        self.heads = nn.ModuleDict({str(one): nn.Linear(encoders[one].width, outputs) for one in _BOTH})

    def logits(self, batch: Batch) -> Tensor:
        """(B, K) of the central network."""
        return self._logits(batch)[0]

    def outputs(self, batch: Batch, labels: Tensor | None) -> dict[str, Tensor]:
        """As `SystemModel.outputs`, with the unimodal classifiers' losses."""
        logits, own = self._logits(batch)
        if labels is None:
            return {"logits": logits}
        loss = self.loss(logits, labels)
        for modality, unimodal in own.items():
            present = batch[f"{modality}_present"]
            if self.beta and present.any():
                loss = loss + self.beta * self.loss(unimodal[present], labels[present])
        return {"loss": loss, "logits": logits}

    def _logits(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        read = {"image": self.image(batch), "text": self.text(batch)}
        central: Tensor | None = None
        for level, (scales, layer) in enumerate(zip(self.scales, self.central, strict=True)):
            terms = [
                self._term(level, modality, levels[level], batch) * scale
                for scale, (modality, (_, levels)) in zip(scales, read.items(), strict=False)
            ]
            if central is not None:
                terms.append(scales[2] * central)
            central = relu(layer(sum(terms)))
        own = {modality: self.heads[modality](self.dropout(vector)) for modality, (vector, _) in read.items()}
        return self.head(self.dropout(central)), own

    def _term(self, level: int, modality: str, vector: Tensor, batch: Batch) -> Tensor:
        """A level's vector of one modality in the level's width; zeros where the sample lacks it."""
        if len(self.projections):
            projections: Any = self.projections[level]
            vector = projections[modality](vector)
        else:
            vector = pad(vector, (0, self.widths[level] - vector.shape[1]))
        return vector.where(batch[f"{modality}_present"].unsqueeze(1), 0.0)


def _sites(encoder: Encoder) -> tuple[ResolvedModel, list[Site]]:
    """The default sites; patches stay tokens where the encoder's vector is the class token's."""
    try:
        resolved = resolve(encoder.model, encoder.inputs(encoder.example()))
        if encoder.modality == "image":
            resolved = replace(resolved, reads=lambda output: encoder.vector(output, {}))
        found = examine(resolved, resolved.default_paths) if resolved.default_paths else {}
        if any(isinstance(one, IgnoredPatchesError) for one in found.values()):
            found = examine(resolved, resolved.default_paths, "tokens")
    except Mi2pError as error:
        raise RecipeError(
            f"the levels of {encoder.name} cannot be read: {error}", fix="name another encoder"
        ) from error
    return resolved, [one for one in found.values() if isinstance(one, Site)]
