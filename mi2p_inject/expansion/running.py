"""Running a backbone with a source: forward, any other method, or a block; and without one."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mi2p_inject.core.errors import InjectionError, SourceError
from mi2p_inject.core.expansion_config import UNNAMED, ExpansionConfig
from mi2p_inject.core.inputs import Inputs
from mi2p_inject.core.layout import image_of
from mi2p_inject.core.numerics.frozen_norms import keep_norms_still
from mi2p_inject.core.numerics.precision import floating_dtype
from mi2p_inject.core.numerics.recording import is_recording
from mi2p_inject.core.site import Site
from mi2p_inject.expansion.backbone_interface import BackboneInterface
from mi2p_inject.expansion.call import Call, Calls, choices
from mi2p_inject.expansion.check_call import (
    call_without_source,
    check_device,
    check_fired,
    check_rows,
    check_without_source,
    common_batch,
    noting_images,
    rows_of_guidance,
    trains_with_others,
    units_of,
)
from mi2p_inject.expansion.hook import SiteHook
from mi2p_inject.expansion.recompute import was_disabled
from mi2p_inject.sources.by_name import Given, given_sources
from mi2p_inject.sources.encoder import Source
from mi2p_inject.sources.features import SourceFeatures, prepare
from mi2p_inject.sources.prepared import PreparedSource

__all__ = ["RunningModel"]

_NOTHING: Mapping[str, Any] = {}


class RunningModel(BackboneInterface):
    """What an expanded model does while it lives: `forward`, `call`, `source`, `disabled`, `encode`."""

    expansion_config: ExpansionConfig
    example: Inputs
    frozen_sources: dict[str, Source]
    calls: Calls
    _initial: dict[str, int | None]
    _hooks: list[tuple[SiteHook, Any]]

    @property
    def sites(self) -> tuple[Site, ...]:
        """The hooked modules, in the order of the backbone's modules."""
        return self.expansion_config.sites

    @property
    def frozen_source(self) -> Source | None:
        """The source encoder and how it is read, if there is one; `frozen_sources` has those of several, by name.

        Raises:
            SourceError: the model has several sources.
        """
        if len(self.expansion_config.sources) > 1:
            raise SourceError(
                "this model has several sources",
                expected=f"one of {', '.join(self.expansion_config.sources)}",
                given="no name",
                fix="ask for one: me.frozen_sources[name]",
            )
        return next(iter(self.frozen_sources.values()), None)

    @property
    def source_encoder(self) -> nn.Module | dict[str, nn.Module] | None:
        """The frozen encoder of the other modality, if there is one; by name where sources have names.

        Not a submodule: see `Source`.
        """
        encoders = {name: source.encoder for name, source in self.frozen_sources.items()}
        return encoders if self.expansion_config.named else encoders.get(UNNAMED)

    @property
    def ejected(self) -> bool:
        """Whether the backbone has been given back."""
        return not self._hooks

    @property
    def active(self) -> bool:
        """Whether a source has an effect here: not where the model is ejected, or in a `with me.disabled()` block."""
        return not self.ejected and not self.calls.now.disabled

    def forward(self, *args: Any, source: Any = None, source_mask: Any = None, **kwargs: Any) -> Any:
        """What the backbone returns, with the source injected.

        Args:
            *args: the backbone's own arguments, as are `**kwargs`.
            source: a batch for the source encoder (tensor, tuple or mapping), or `SourceFeatures`; None: exactly the
                backbone's output. Of a model injected with a dict of sources: such a dict of them; one that is absent,
                or None, adds nothing.
            source_mask: (B,) bool, False for rows whose source is missing: exactly the backbone's output there. By
                name, as `source`, where sources have names.

        Raises:
            SourceError: no source encoder, or a source of the wrong kind, width, batch, device or dtype.
            SiteError: a site did not fire.
            InjectionError: the backbone has been ejected.
        """
        return self._run(self.backbone, args, kwargs, source, source_mask, once=True)

    def call(self, method: str, *args: Any, source: Any = None, source_mask: Any = None, **kwargs: Any) -> Any:
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
            SiteError: the method does not run a site, so its unit would have no effect.
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

    @contextmanager
    def source(self, batch: Any, source_mask: Any = None) -> Iterator[None]:
        """A block in which the backbone itself, and all its methods, run with the source injected, in this thread.

        For code that takes the backbone and calls it by itself, such as a pipeline or a method with callbacks. `me(x)`
        takes its own `source=`, and refuses to run without one inside the block.

        Args:
            batch: as `source` of `forward`; encoded once.
            source_mask: as for `forward`.

        Raises:
            SourceError: as for `forward`.
            SiteError: the block ran no forward of the backbone, or one in which a site did not fire.

        Examples:
            >>> import torch
            >>> from mi2p_inject import ViewSpec, SourceFeatures, inject
            >>> net, x = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3)), torch.randn(2, 3, 8, 8)
            >>> me = inject(net, layers="0", source_spec=ViewSpec.tokens(4), example_inputs=x)
            >>> with me.source(SourceFeatures(torch.randn(2, 5, 4))):
            ...     y = me.backbone(x)
        """
        self._check_live()
        if self.expansion_config.trainable == "units":
            keep_norms_still(self.backbone, self._initial)
        disabled = was_disabled(self.calls)
        call = self._call(given_sources(batch, source_mask, self.expansion_config.sources), once=False)
        call.block = True
        with (
            noting_images(self.backbone, self.calls, call, self.example),
            self.calls.block(None if disabled else call, disabled),
        ):
            yield
        if not (disabled or self.ejected):
            check_fired(self, call)

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """A block in which sources have no effect, in this thread: whatever runs, runs as the backbone alone.

        Examples:
            >>> import torch
            >>> from mi2p_inject import ViewSpec, SourceFeatures, inject
            >>> net, x = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3)), torch.randn(2, 3, 8, 8)
            >>> me = inject(net, layers="0", source_spec=ViewSpec.tokens(4), example_inputs=x, zero_init=None)
            >>> with me.disabled():
            ...     torch.equal(me(x, source=SourceFeatures(torch.randn(2, 5, 4))), net(x))
            True
        """
        with self.calls.block(None, True):
            yield

    def _run(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        source: Any,
        source_mask: Any,
        once: bool,
    ) -> Any:
        self._check_live()
        if self.expansion_config.trainable == "units" and not torch.compiler.is_compiling():
            keep_norms_still(self.backbone, self._initial)
        outer = self.calls.now.call
        given = given_sources(source, source_mask, self.expansion_config.sources)
        if not given:
            check_without_source(outer)
        disabled = was_disabled(self.calls)
        if disabled:
            self.calls.check_task()
        alone = not given or disabled
        call = call_without_source(self) if alone else self._call(given, once, args, kwargs)
        self.calls.now.call = call
        try:
            output = function(*args, **kwargs)
        finally:
            self.calls.now.call = outer
        if call is not None and call.sources:
            check_fired(self, call, kwargs)
        return output

    def _call(self, given: Given, once: bool, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] = _NOTHING) -> Call:
        units = units_of(self)
        features = {name: self._features(name, batch) for name, (batch, _) in given.items()}
        sources = {name: self._prepare(name, one, given[name][1]) for name, one in features.items()}
        times = choices(args, kwargs, common_batch(sources)) if once else None
        if not once:
            check_rows(args, kwargs, common_batch(sources))
        call = Call(sources, units, image_of(args, dict(kwargs)), once, times=times)
        call.takes_part = len(sources) < len(self.expansion_config.sources) and trains_with_others(self)
        if not is_recording():
            call.recorders = self.calls.now.recorders
        if not once:
            call.doubled = rows_of_guidance(self.backbone, kwargs)
        if not once or times:
            call.repeat = lambda name, which: self._prepare(name, features[name][which], _rows(given[name][1], which))
        return call

    def _prepare(self, name: str, features: SourceFeatures, source_mask: Tensor | None) -> PreparedSource:
        dtype = floating_dtype(self.units)
        built, strict = self.expansion_config.sources[name].spec, self.expansion_config.strict
        recorded = not is_recording() and bool(self.calls.now.recorders)  # weights have a place for every token given
        return prepare(features, built, dtype, source_mask, strict, trim=not recorded)

    def encode(self, batch: Any) -> Any:
        """Source features of a batch, reusable: `me(x, source=me.encode(batch))` encodes no second time.

        Args:
            batch: as `source` of `forward`; what are features already stay as they are.

        Returns:
            `SourceFeatures`, or by name where sources have names.

        Raises:
            SourceError: the model was injected without a source encoder.
        """
        if not self.expansion_config.named:
            return self._encode(UNNAMED, batch)
        given = given_sources(batch, None, self.expansion_config.sources)
        return {name: self._encode(name, one) for name, (one, _) in given.items()}

    def _features(self, name: str, batch: Any) -> SourceFeatures:
        """A source's features, where the units are."""
        features = self._encode(name, batch)
        check_device(self, features)
        return features

    def _encode(self, name: str, batch: Any) -> SourceFeatures:
        if isinstance(batch, SourceFeatures):
            return batch
        if name not in self.frozen_sources:
            raise SourceError(
                f"this model has no source encoder{f' for {name}' if name else ''}",
                expected="SourceFeatures(...)" if name else "source=SourceFeatures(...)",
                given=type(batch).__name__,
                fix="pass features, or inject (or load) with source_encoder=",
            )
        return self.frozen_sources[name].encode(batch)

    def _check_live(self) -> None:
        if self.ejected:
            raise InjectionError(
                "this expanded model has been ejected",
                expected="a live one",
                given="one whose backbone was given back",
                fix="use the backbone that eject() returned, or inject it again",
            )


def _rows(mask: Tensor | None, which: Tensor) -> Tensor | None:
    return None if mask is None else mask[which]
