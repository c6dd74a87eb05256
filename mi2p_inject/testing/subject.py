"""A model under test, prepared once, and the trial that one check makes of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from mi2p_inject.adapters.recommended import PAPER
from mi2p_inject.core.errors import Mi2pError
from mi2p_inject.core.inputs import Inputs, as_inputs
from mi2p_inject.core.views import ViewSpec
from mi2p_inject.expansion.expanded_model import ExpandedModel
from mi2p_inject.expansion.inject import Plan, inject, inject_as_planned
from mi2p_inject.inspection.resolve import resolve
from mi2p_inject.inspection.vary_inputs import image_size
from mi2p_inject.sources.features import SourceFeatures
from mi2p_inject.testing.compare import difference
from mi2p_inject.testing.errors import CheckError, ContractError
from mi2p_inject.testing.inputs import batch_of, features_for, preserved_random_state, real_inputs, reversed_samples
from mi2p_inject.testing.randomize import randomize_zero_parameters, refresh_batch_norm

__all__ = ["Role", "Subject", "Trial", "prepare"]

Role = Literal["backbone", "source"]
T = TypeVar("T")
WORDS, PICTURE = ViewSpec.tokens(12), ViewSpec.map(10, 3, 4)
REPORT = "where the model's own code is in order, report this with the model's class"


@dataclass(frozen=True)
class Subject:
    """A model as the checks see it. Made by `prepare`; a check works on copies and leaves it as it is.

    Attributes:
        model: a copy in eval mode, whose zero parameters and batch statistics have been made to matter.
        role: what it is checked as.
        example: what `inject` is given as example inputs; None: nothing, the adapter's are taken.
        inputs: what the checks run it on.
        root: where in the model the encoder stands that is called as a source.
        spec: of the source features that a backbone is given.
        options: more options of `inject`.
    """

    model: nn.Module
    role: Role
    example: Any
    inputs: Inputs
    root: str = ""
    spec: ViewSpec = WORDS
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def batch(self) -> int:
        """Number of samples in the inputs."""
        return batch_of(self.inputs)

    @cached_property
    def plan(self) -> Plan:
        """What one injection found out, so that other checks need no dry runs; as `load` has it from a checkpoint."""
        return Plan.of(self.inject(copy.deepcopy(self.model)))

    def inject(self, model: nn.Module, **options: Any) -> ExpandedModel:
        """Expand a copy of the model as its user would, at every default site where no layers are named."""
        given = {"layers": PAPER, "source_spec": self.spec, "example_inputs": self.example, **self.options, **options}
        me = inject(model, **given)
        if not options:
            vars(self).setdefault("plan", Plan.of(me))  # found out: nobody need inject for it
        return me

    def attach(self, network: nn.Module, pictures: Tensor, encoder: nn.Module, anew: bool) -> ExpandedModel:
        """Make a copy of the model the source encoder of a small network, by the plan of an earlier such one, if any.

        Args:
            network: always the same one.
            pictures: its example inputs.
            encoder: the copy.
            anew: with dry runs of its own.
        """
        plan: Plan | None = None if anew else vars(self).get("attached")
        if plan is not None:
            return inject_as_planned(plan, network, encoder, self.example)
        me = inject(
            network, layers="0", source_encoder=encoder, example_inputs=pictures, source_example_inputs=self.example
        )
        vars(self)["attached"] = Plan.of(me)
        return me


def prepare(model: nn.Module, role: Role = "backbone", example_inputs: Any = None, **options: Any) -> Subject:
    """Make a copy of a model ready for the checks of one role: for several checks of one model this is done once.

    Args:
        model: any weights, random ones too; it is not touched.
        role: "backbone" or "source".
        example_inputs: two samples or more: a tensor, a tuple of arguments or a mapping. The checks run on them. None:
            the shapes of the adapter's example inputs, with random content.
        **options: further options of `inject` for a backbone, such as `layers=`, `unit=` or `source_spec=`.

    Raises:
        CheckError: fewer than two samples.
        ProbeError: no example inputs, and no adapter that makes some.
        AdapterError: the model holds several encoders.

    Examples:
        >>> import timm
        >>> from mi2p_inject.testing import prepare
        >>> subject = prepare(timm.create_model("resnet10t"))
        >>> subject.batch, subject.role, subject.model.training
        (2, 'backbone', False)
    """
    with preserved_random_state():
        return _prepared(copy.deepcopy(model).eval(), role, example_inputs, options)


def _prepared(ready: nn.Module, role: Role, example_inputs: Any, options: dict[str, Any]) -> Subject:
    known = options.get("layers") is not None and example_inputs is not None
    resolved = resolve(ready, example_inputs, ambiguous=known, as_source=role == "source")
    called = resolved.inner if role == "source" else ready
    inputs = as_inputs(example_inputs) if example_inputs is not None else real_inputs(called, resolved.inputs)
    if batch_of(inputs) < 2:
        raise CheckError(
            "the checks compare samples with each other",
            expected="example inputs of two samples or more",
            given=f"{batch_of(inputs)}",
            fix="pass example_inputs= of two or three different samples",
        )
    randomize_zero_parameters(ready)
    refresh_batch_norm(called, inputs)
    reads_images = image_size(inputs) is not None
    spec = options.pop("source_spec", WORDS if reads_images else PICTURE)
    root = resolved.match.root if resolved.match and role == "source" else ""
    # Injected with other content than is run later: whatever was remembered of it would show.
    turned = reversed_samples(inputs)
    example = None if example_inputs is None else turned[1] or turned[0]
    return Subject(ready, role, example, inputs, root, spec, options)


class Trial:
    """One check of one subject: fresh copies to work on, and what was found.

    Args:
        subject: the prepared model.
        check: name of the check, for its errors.

    Attributes:
        notes: what could not be asked of this model, and why.
        refusal: the error with which `inject` refused the model, if it did.
        found: the sites of a backbone with their layouts, or what features a source gives.
        left_out: default sites that `inject` left out.
    """

    def __init__(self, subject: Subject, check: str) -> None:
        self.subject, self.check, self.inputs = subject, check, subject.inputs
        self.notes: list[str] = []
        self.refusal: Mi2pError | None = None
        self.found: tuple[str, ...] = ()
        self.left_out: tuple[str, ...] = ()

    @cached_property
    def source(self) -> SourceFeatures:
        """Source features for a backbone, one sample each."""
        return self.features()

    def features(self, seed: int = 0) -> SourceFeatures:
        """Source features on the model's device."""
        reference = next(self.subject.model.parameters(), torch.empty(0))
        return features_for(self.subject.spec, self.subject.batch, seed).to(reference.device)

    def twin(self) -> nn.Module:
        """A copy of the model that is never injected: the contract is stated against it.

        Model and twin do the same things in the same order: some models keep tables from one forward to the next, and
        some kernels are others where gradients are wanted.
        """
        return copy.deepcopy(self.subject.model)

    def expand(self, model: nn.Module | None = None, names: Sequence[str] = ()) -> ExpandedModel:
        """A copy of the model (None: a fresh one) with units at the sites that `inject` found once for all checks.

        Args:
            model: the copy.
            names: of sources that each have units at all these sites; none: the one source has no name.
        """
        plan = self.accept(lambda: self.subject.plan)
        config = plan.config
        if names:
            config = replace(config, sources=dict.fromkeys(names, next(iter(config.sources.values()))))
        return self._seen(ExpandedModel(self.twin() if model is None else model, config, {}, plan.example))

    def inject(self, model: nn.Module, **options: Any) -> ExpandedModel:
        """Run `inject` itself, dry runs and all, on a copy of the model."""
        return self._seen(self.accept(lambda: self.subject.inject(model, **options)))

    def _seen(self, me: ExpandedModel) -> ExpandedModel:
        self.found = tuple(f"{site.path} {site.layout}" for site in me.sites)
        self.left_out = me.expansion_config.left_out
        return me

    def attach(self, network: nn.Module, pictures: Tensor, encoder: nn.Module, anew: bool = False) -> ExpandedModel:
        """Make the model the source encoder of a small network; `anew`: what its dry runs leave behind is asked for."""
        me = self.accept(lambda: self.subject.attach(network, pictures, encoder, anew))
        self.found = (str(me.expansion_config.source),)
        return me

    def accept(self, action: Callable[[], T]) -> T:
        """Run an injection; an error of ours there is a refusal, and anywhere later comes too late."""
        try:
            return action()
        except Mi2pError as error:
            self.refusal = error
            raise

    def note(self, text: str) -> None:
        """Keep what could not be asked of this model."""
        if text not in self.notes:
            self.notes.append(text)

    def require(self, kept: Any, what: str, *, path: str = "", expected: str, given: str, fix: str = REPORT) -> None:
        """Raise unless the contract is kept.

        Raises:
            ContractError: it is not.
        """
        if not kept:
            raise ContractError(what, check=self.check, path=path, expected=expected, given=given, fix=fix)

    def equal(
        self, output: Any, expected: Any, what: str, of: str = "the backbone's own output", path: str = ""
    ) -> None:
        """Raise unless two outputs are the same bit for bit."""
        found = difference(output, expected)
        self.require(not found, what, path=path, expected=f"{of}, bit for bit", given=found)

    def differ(self, output: Any, other: Any, what: str, path: str = "") -> None:
        """Raise where two outputs are the same bit for bit."""
        self.require(
            difference(output, other),
            what,
            path=path,
            expected="another output than the backbone's",
            given="the same, bit for bit",
            fix="the site's effect does not reach the output, or the unit's residual is always zero",
        )
