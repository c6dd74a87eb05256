"""The expanded model: backbone + units + source encoder."""

from __future__ import annotations

import difflib
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mi2p_inject.checkpoint.save import save
from mi2p_inject.core.errors import InjectionError, SiteError, SourceError
from mi2p_inject.core.expansion_config import ExpansionConfig
from mi2p_inject.core.files.digest import quick_sums
from mi2p_inject.core.inputs import Inputs
from mi2p_inject.core.layout import image_of
from mi2p_inject.core.shared_state import BACKBONES, Record
from mi2p_inject.core.site import Site, unit_key
from mi2p_inject.expansion.call import Call, Calls
from mi2p_inject.expansion.hook import SiteHook, hook_path, purge
from mi2p_inject.inspection.switches import checkpointed
from mi2p_inject.report.summary import Summary
from mi2p_inject.sources.encoder import Source
from mi2p_inject.sources.features import PreparedSource, SourceFeatures, prepare
from mi2p_inject.units.base import Unit
from mi2p_inject.units.unit_dict import UnitDict


class ExpandedModel(nn.Module):
    """A backbone that hears a second modality. Built by `inject` and `load`, not by hand.

    Attributes:
        backbone: the very model that was injected.
        units: the plug-ins; the key of the unit at path `a.b` is `/a/b` (`unit("a.b")` gives it).
        sites: where they are: path, layout, view.

    Example:
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

    backbone: nn.Module

    def __init__(self, backbone: nn.Module, config: ExpansionConfig, source: Source | None, example: Inputs) -> None:
        super().__init__()
        self.expansion_config = config
        self.example = example
        self.calls = Calls()
        self.source = source
        self.backbone = backbone
        purge(backbone)
        reference = next(backbone.parameters(), torch.empty(0))
        self.units = UnitDict()
        with torch.device("meta" if reference.is_meta else "cpu"):  # nothing is allocated beside a meta backbone
            for site in config.sites:
                unit = config.unit.build(site.spec, config.source, config.num_heads)
                self.units[site.key] = unit.to(reference.device, _floating(reference.dtype))
        self.training = backbone.training
        self.units.train(backbone.training)
        self._hooks = [_register(backbone, SiteHook(site, self.calls, config.strict)) for site in config.sites]
        self._record: Record | None = None
        self._initial = quick_sums(backbone) if config.trainable == "units" else {}
        self._settle()
        if config.trainable == "units":
            backbone.requires_grad_(False)
            self._still_batch_norm()

    @property
    def sites(self) -> tuple[Site, ...]:
        """The hooked modules, in the order of the backbone's modules."""
        return self.expansion_config.sites

    @property
    def source_encoder(self) -> nn.Module | None:
        """The frozen encoder of the other modality, if there is one. Not a submodule: see `Source`."""
        return self.source.encoder if self.source else None

    @property
    def ejected(self) -> bool:
        """Whether the backbone has been given back."""
        return not self._hooks

    def unit(self, path: str) -> Unit:
        """The unit at a site's path."""
        unit: Unit = self.units.in_use()[unit_key(path)]  # type: ignore[assignment]
        return unit

    def forward(self, *args: Any, source: Any = None, source_mask: Tensor | None = None, **kwargs: Any) -> Any:
        """What the backbone returns, with the source injected.

        Args:
            *args: the backbone's own arguments, as are `**kwargs`.
            source: a batch for the source encoder (tensor, tuple or mapping), or `SourceFeatures`; None: exactly the
                backbone's output.
            source_mask: (B,) bool, False for rows whose source is missing: exactly the backbone's output there.

        Raises:
            SourceError: no source encoder, or a source of the wrong kind, width, batch, device or dtype.
            SiteError: a site did not fire.
            InjectionError: the backbone has been ejected.
        """
        return self._run(self.backbone, args, kwargs, source, source_mask, once=True)

    def call(
        self, method: str, *args: Any, source: Any = None, source_mask: Tensor | None = None, **kwargs: Any
    ) -> Any:
        """What any method of the backbone returns, with the source injected.

        `me.backbone.forward_features(x)` knows of no source; `me.call("forward_features", x, source=batch)` does. The
        source is encoded once, however often the method runs the backbone, as `me.call("generate", ids, source=batch)`
        does; where it repeats each row (beams, several sequences a prompt), the source's rows are repeated with them.

        Args:
            method: name of the backbone's method.
            *args: the method's own arguments, as are `**kwargs`.
            source: as for `forward`.
            source_mask: as for `forward`.

        Raises:
            InjectionError: the backbone has no such method, or has been ejected.
            SourceError: as for `forward`.
            SiteError: the method does not run a site, so the source would go unheard.
        """
        function = getattr(self.backbone, method, None)
        if not callable(function):
            close = difflib.get_close_matches(method, dir(self.backbone), n=3)
            raise InjectionError(
                f"the backbone has no method {method!r}",
                expected=f"a method of {type(self.backbone).__name__}",
                given=method,
                fix=f"did you mean {' or '.join(close)}?" if close else "see dir(me.backbone)",
            )
        return self._run(function, args, kwargs, source, source_mask, once=False)

    def _run(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        source: Any,
        source_mask: Tensor | None,
        once: bool,
    ) -> Any:
        self._check_live()
        if source is None:
            if source_mask is not None:
                raise SourceError(
                    "source_mask without a source", expected="both or neither", given="source=None", fix="pass source="
                )
            return function(*args, **kwargs)
        features = source if isinstance(source, SourceFeatures) else self.encode(source)
        if features.data.device != self._device():
            raise SourceError(
                "the source features are on another device than the units",
                expected=str(self._device()),
                given=str(features.data.device),
                fix="move them: source=features.to(device), or the batch before encoding",
            )
        call = Call(self._prepare(features, source_mask), self.units.in_use(), image_of(args, kwargs))
        if not once:
            call.repeat = lambda rows: self._prepare(features[rows], None if source_mask is None else source_mask[rows])
        self.calls.call = call
        try:
            output = function(*args, **kwargs)
        finally:
            self.calls.call = None
        self._check_fired(call)
        return output

    def _prepare(self, features: SourceFeatures, source_mask: Tensor | None) -> PreparedSource:
        return prepare(features, self.expansion_config.source, self._dtype(), source_mask, self.expansion_config.strict)

    def encode(self, batch: Any) -> SourceFeatures:
        """Source features of a batch, reusable: `me(x, source=me.encode(batch))` encodes no second time.

        Raises:
            SourceError: the model was injected without a source encoder.
        """
        if self.source is None:
            raise SourceError(
                "this model has no source encoder",
                expected="source=SourceFeatures(...)",
                given=type(batch).__name__,
                fix="pass features, or inject (or load) with source_encoder=",
            )
        return self.source.encode(batch)

    def train(self, mode: bool = True) -> ExpandedModel:
        """As `nn.Module.train`; the source encoder stays in eval mode, and so does a frozen backbone's BatchNorm."""
        super().train(mode)
        if self.expansion_config.trainable == "units":
            self._still_batch_norm()
        return self

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters that train under the chosen policy: the units', and with trainable="all" the backbone's."""
        return (parameter for parameter in self.parameters() if parameter.requires_grad)

    def summary(self) -> str:
        """A table of the sites: path, layout, view, heads, parameters, share of the cost; and totals."""
        return str(Summary(self.backbone, self.units.in_use(), self.expansion_config, self.source, self.example))

    def save_pretrained(self, folder: str | Path, *, max_shard_size: int | str = "5GB") -> None:
        """Write a checkpoint: `mi2p_config.json` and safetensors files. See `mi2p_inject.checkpoint.save`."""
        save(self, self.backbone, self.expansion_config, folder, initial=self._initial, max_shard_size=max_shard_size)

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

    def _check_live(self) -> None:
        if self.ejected:
            raise InjectionError(
                "this expanded model has been ejected",
                expected="a live one",
                given="one whose backbone was given back",
                fix="use the backbone that eject() returned, or inject it again",
            )

    def _check_fired(self, call: Call) -> None:
        """Contract 3 at run time: hooks that something has silently disabled are found out at the first forward."""
        missing = [site.path for site in self.sites if site.path not in call.fired]
        if not missing or (self.training and _drops_layers(self.backbone)):
            return
        raise SiteError(
            "did not fire in this forward, so its unit had no effect",
            path=missing[0],
            expected=f"all {len(self.sites)} sites",
            given=f"{len(call.fired)} fired; silent: {', '.join(missing)}",
            fix=_why_silent(self.backbone, missing[0], once=call.repeat is None),
        )

    def _still_batch_norm(self) -> None:
        for module in self.backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()

    def _device(self) -> torch.device:
        return next(self.units.parameters()).device

    def _dtype(self) -> torch.dtype:
        return next(self.units.parameters()).dtype

    def _apply(self, fn: Any, recurse: bool = True) -> ExpandedModel:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.source is not None:
            self.source.apply(fn)
        return self

    def _settle(self) -> None:
        """Take part in the loans of backbone and source encoder, and end that when this object is ejected or goes.

        A notebook cell run twice thus leaves nothing behind.
        """
        self._record = BACKBONES.acquire(
            self.backbone, self._record, freezes=self.expansion_config.trainable == "units"
        )
        if self.source is not None:
            self.source.freeze()
        for hook, _ in self._hooks:
            hook.owner = weakref.ref(self)
        self._finalizer = weakref.finalize(self, _give_back, self._hooks, self.backbone, self.source)
        self._finalizer.atexit = False

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.pop("_finalizer", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if not self.ejected:
            self._settle()


def _register(backbone: nn.Module, hook: SiteHook) -> tuple[SiteHook, Any]:
    # prepend: whoever records hidden states with hooks of their own sees the injected ones
    module = backbone.get_submodule(hook_path(backbone, hook.path))
    return hook, module.register_forward_hook(hook, prepend=True)


def _give_back(hooks: list[tuple[SiteHook, Any]], backbone: nn.Module, source: Source | None) -> None:
    for _, handle in hooks:
        handle.remove()
    hooks.clear()
    BACKBONES.release(backbone)
    if source is not None:
        source.thaw()


def _why_silent(backbone: nn.Module, path: str, once: bool) -> str:
    if any(path == on or path.startswith(f"{on}.") or not on for on in checkpointed(backbone)):
        return "gradient checkpointing runs other modules in its place: switch that off, or choose modules inside"
    if not once:
        return "choose a method that runs this module, or sites among the modules that it runs"
    return (
        "if the backbone was compiled after injection, compile the expanded model instead; else choose another module"
    )


def _floating(dtype: torch.dtype) -> torch.dtype:
    """The units' dtype for a backbone's: its own floating type, float32 for a quantised one."""
    return dtype if dtype.is_floating_point and dtype.itemsize >= 2 else torch.float32


def _drops_layers(backbone: nn.Module) -> bool:
    configs = [getattr(module, "config", None) for module in backbone.modules()]
    names = ("layerdrop", "encoder_layerdrop", "decoder_layerdrop")
    return any(getattr(config, name, 0) for config in configs for name in names)
