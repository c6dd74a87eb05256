"""The expanded model: backbone + units + source encoder."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from mi2p_inject.checkpoint.card import model_card, write_card
from mi2p_inject.checkpoint.hub import as_path, push_folder
from mi2p_inject.checkpoint.save import save
from mi2p_inject.core.expansion_config import ExpansionConfig
from mi2p_inject.core.files.digest import quick_sums
from mi2p_inject.core.inputs import Inputs
from mi2p_inject.core.numerics.frozen_norms import keep_norms_still
from mi2p_inject.core.shared_state import BACKBONES, Record
from mi2p_inject.expansion.call import Calls
from mi2p_inject.expansion.hook import SiteHook, hook_path, purge
from mi2p_inject.expansion.load import load_model
from mi2p_inject.expansion.running import RunningModel
from mi2p_inject.report.summary import Summary
from mi2p_inject.sources.encoder import Source
from mi2p_inject.units.base import Unit
from mi2p_inject.units.build_units import build_units

__all__ = ["ExpandedModel", "load"]


class ExpandedModel(RunningModel):
    """A backbone whose middle layers attend to a second modality. Built by `inject` and `from_pretrained`, not by hand.

    What tools ask a model for (`config`, `device`, `gradient_checkpointing_enable`, ...) it answers as the backbone
    does: see `BackboneInterface`.

    Attributes:
        backbone: the very model that was injected.
        units: the plug-ins; the key of the unit at path `a.b` is `/a/b` (`unit("a.b")` gives it).
        sites: where they are: path, layout, view.
        frozen_sources: the source encoders by name, and how they are read; one without a name has the empty one.

    Examples:
        >>> import torch
        >>> from mi2p_inject import ViewSpec, SourceFeatures, inject
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.LazyLinear(2))
        >>> x = torch.randn(2, 3, 8, 8)
        >>> _ = net(x)
        >>> me = inject(net, layers="0", source_spec=ViewSpec.tokens(4), example_inputs=x)
        >>> torch.equal(me(x, source=SourceFeatures(torch.randn(2, 5, 4))), me(x))
        True
        >>> me.eject() is net
        True
    """

    def __init__(
        self, backbone: nn.Module, config: ExpansionConfig, sources: Mapping[str, Source], example: Inputs
    ) -> None:
        super().__init__()
        self.expansion_config = config
        self.example = example
        self.calls = Calls()
        self.frozen_sources = dict(sources)
        self.backbone = backbone
        purge(backbone)
        self.units = build_units(backbone, config)
        self.training = backbone.training
        self.units.train(backbone.training)
        at = {site.path: [place for place in config.places if place.site == site] for site in config.sites}
        self._hooks = [_register(backbone, SiteHook(places, self.calls, config.strict)) for places in at.values()]
        self._record: Record | None = None
        self._initial = quick_sums(backbone) if config.trainable == "units" else {}
        self._settle()
        if config.trainable == "units":
            backbone.requires_grad_(False)
            keep_norms_still(backbone, self._initial)

    def unit(self, path: str, source: str | None = None) -> Unit:
        """The unit at a site's path, and of the source of that name where sources have names.

        Raises:
            SelectionError: no unit stands there.
            SourceError: no source has this name, or there are several and none is named.
        """
        unit: Unit = self.units.in_use()[self.expansion_config.place(path, source).key]  # type: ignore[assignment]
        return unit

    def train(self, mode: bool = True) -> ExpandedModel:
        """As `nn.Module.train`; the source encoder stays in eval mode, and so does a frozen backbone's BatchNorm."""
        super().train(mode)
        if self.expansion_config.trainable == "units":
            keep_norms_still(self.backbone, self._initial)
        return self

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that train under the chosen policy: the units', and with trainable="all" the backbone's."""
        return (parameter for parameter in self.parameters() if parameter.requires_grad)

    def summary(self) -> str:
        """A table of the sites: path, layout, view, heads, parameters, share of the cost; and totals."""
        return str(self._summary())

    def _repr_html_(self) -> str:
        """The summary, for notebooks."""
        return self._summary().to_html()

    def _summary(self) -> Summary:
        units, config = self.units.in_use(), self.expansion_config
        return Summary(self.backbone, units, config, self.frozen_sources, self.example)

    def save_pretrained(
        self, folder: str | Path, *, max_shard_size: int | str = "5GB", card: Mapping[str, Any] | None = None
    ) -> None:
        """Write a checkpoint: `mi2p_config.json`, safetensors files and a model card, README.md.

        See `mi2p_inject.checkpoint.save` for what is saved. A README.md that somebody else wrote stays.

        Args:
            folder: created if needed.
            max_shard_size: of a file of weights.
            card: metadata of the model card, as of `huggingface_hub.ModelCardData`: ``{"license": "mit"}``.

        Raises:
            CheckpointError: it cannot be written, or not be saved whole, or `card` is none.
        """
        self._save(folder, max_shard_size, card)

    def _save(
        self, folder: str | Path, size: int | str, card: Mapping[str, Any] | None, place: str | None = None
    ) -> None:
        path = as_path(folder)
        encoders = {name: source.encoder for name, source in self.frozen_sources.items()}
        text = model_card(self.expansion_config, self.backbone, encoders, card, *([place] if place else []))
        save(self, self.backbone, self.expansion_config, path, self._initial, self.frozen_sources, max_shard_size=size)
        write_card(path, text)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        card: Mapping[str, Any] | None = None,
        commit_message: str = "Upload an expanded model",
        revision: str | None = None,
        token: str | bool | None = None,
        private: bool | None = None,
        create_pr: bool = False,
        max_shard_size: int | str = "5GB",
    ) -> str:
        """Upload what `save_pretrained` writes to a repository of the Hugging Face Hub, as one commit.

        The repository is made if there is none. An earlier checkpoint of ours in it is replaced, other files stay.

        Args:
            repo_id: ``organisation/name``.
            card: metadata of the model card, as for `save_pretrained`.
            commit_message: of the commit.
            revision: the branch, made if there is none; None: the main branch.
            token: of a user who may write there; None: the one that ``hf auth login`` stored.
            private: a new repository is; None: as the organisation has it.
            create_pr: open a pull request instead.
            max_shard_size: of a file of weights.

        Returns:
            The URL of the commit, or of the pull request.

        Raises:
            CheckpointError: as for `save_pretrained`; nothing has left this machine.
            HubError: no permission, no network, or a wrong id.
        """
        with tempfile.TemporaryDirectory() as folder:
            self._save(folder, max_shard_size, card, repo_id)
            return push_folder(
                Path(folder),
                repo_id,
                message=commit_message,
                revision=revision,
                token=token,
                private=private,
                create_pr=create_pr,
            )

    @classmethod
    def from_pretrained(
        cls,
        repo_or_folder: str | Path,
        *,
        backbone: nn.Module,
        source_encoder: nn.Module | Mapping[str, nn.Module] | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        example_inputs: Any = None,
        source_example_inputs: Any = None,
    ) -> ExpandedModel:
        """An expanded model from a checkpoint, on a fresh backbone; `mi2p_inject.load` is the same.

        All is validated before the backbone is touched: a checkpoint that does not fit leaves it as it was.

        Args:
            repo_or_folder: what `save_pretrained` wrote: a folder, or the id of a Hugging Face Hub repository.
            backbone: a model of the class and shapes that were injected. With trainable="units" it must also have the
                very weights, since these are not in the checkpoint.
            source_encoder: as in `inject`; without it, features must be given. One of another class or with other
                weights than at saving is warned of.
            revision: of a repository: a branch, a tag or a commit; None: the newest of the main branch.
            token: of a user who may read it; None: the one that ``hf auth login`` stored.
            example_inputs: as in `inject`, only used by the summary's cost table where no adapter matches the backbone.
            source_example_inputs: as in `inject`.

        Raises:
            CheckpointError: not a checkpoint of ours, damaged, with an unknown unit, holding a pickle, or of another
                backbone or source encoder.
            HubError: no such repository or revision, or it cannot be read.
            InjectionError: backbone or source encoder cannot be injected, as in `inject`.
        """
        return load_model(
            cls,
            repo_or_folder,
            backbone=backbone,
            source_encoder=source_encoder,
            revision=revision,
            token=token,
            example_inputs=example_inputs,
            source_example_inputs=source_example_inputs,
        )

    def eject(self) -> nn.Module:
        """Give the backbone back: our hooks gone, `requires_grad` and training modes as they were at injection.

        Weights that were trained stay trained. The units stay with this object, which can no longer run.

        Raises:
            InjectionError: already ejected.
        """
        self._check_live()
        self._finalizer()
        purge(self.backbone)
        return self.backbone

    def _apply(self, fn: Any, recurse: bool = True) -> ExpandedModel:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for source in self.frozen_sources.values():
            source.apply(fn)
        return self

    def _settle(self) -> None:
        """Share backbone and source encoder with other expanded models, until this object is ejected or goes.

        A notebook cell run twice thus leaves nothing behind.
        """
        self.take_signature()
        freezes = self.expansion_config.trainable == "units"
        self._record = BACKBONES.acquire(self.backbone, self._record, freezes)
        for source in self.frozen_sources.values():
            source.freeze()
        for hook, _ in self._hooks:
            hook.owner = weakref.ref(self)
        sources = list(self.frozen_sources.values())
        self._finalizer = weakref.finalize(self, _give_back, self._hooks, self.backbone, freezes, sources)
        self._finalizer.atexit = False

    def __copy__(self) -> ExpandedModel:
        """A shallow copy shares hooks with the original, which lives as long: else they would go with the first."""
        copied: ExpandedModel = object.__new__(type(self))
        copied.__dict__.update(self.__dict__, _original=self)
        return copied

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_finalizer", "_original")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if not self.ejected:
            self._settle()


def _register(backbone: nn.Module, hook: SiteHook) -> tuple[SiteHook, Any]:
    # prepend: whoever records hidden states with hooks of their own sees the injected ones
    module = backbone.get_submodule(hook_path(backbone, hook.path))
    return hook, module.register_forward_hook(hook, prepend=True)


def _give_back(hooks: list[Any], backbone: nn.Module, freezes: bool, sources: Sequence[Source]) -> None:
    for _, handle in hooks:
        handle.remove()
    hooks.clear()
    BACKBONES.release(backbone, freezes)
    for source in sources:
        source.thaw()


load = ExpandedModel.from_pretrained
