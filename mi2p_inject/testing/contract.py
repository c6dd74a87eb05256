"""`check_model` and `iter_checks`: the whole contract over one model."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from mi2p_inject.testing.check import Check, CheckResult
from mi2p_inject.testing.checks.checkpoint import check_checkpoint
from mi2p_inject.testing.checks.gradients import check_gradients
from mi2p_inject.testing.checks.isolation import check_copies, check_threads, check_two_models
from mi2p_inject.testing.checks.outputs import (
    check_fires,
    check_identity,
    check_missing_source,
    check_units_reach_output,
)
from mi2p_inject.testing.checks.padding import check_padding
from mi2p_inject.testing.checks.several import check_several_sources
from mi2p_inject.testing.checks.source import check_features, check_frozen, check_given_back, check_training
from mi2p_inject.testing.checks.state import check_eject, check_exception
from mi2p_inject.testing.errors import CheckError
from mi2p_inject.testing.subject import Role, Subject, prepare

__all__ = ["CHECKS", "Report", "check_model", "iter_checks"]

CHECKS: tuple[Check, ...] = (
    Check("identity", "backbone", check_identity),
    Check("fires", "backbone", check_fires),
    Check("gradients", "backbone", check_gradients),
    Check("units_reach_output", "backbone", check_units_reach_output),
    Check("missing_source", "backbone", check_missing_source),
    Check("padding", "backbone", check_padding),
    Check("several_sources", "backbone", check_several_sources),
    Check("eject", "backbone", check_eject),
    Check("exception", "backbone", check_exception),
    Check("threads", "backbone", check_threads),
    Check("two_models", "backbone", check_two_models),
    Check("copies", "backbone", check_copies),
    Check("checkpoint", "backbone", check_checkpoint),
    Check("training", "source", check_training),
    Check("frozen", "source", check_frozen),
    Check("features", "source", check_features),
    Check("given_back", "source", check_given_back),
)
"""All checks, in the order in which `check_model` runs them. A new contract is one function and one line here."""


@dataclass(frozen=True)
class Report:
    """What `check_model` checked; printable.

    Attributes:
        model: name of the model's class.
        results: one for each check, in order.
    """

    model: str
    results: tuple[CheckResult, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be asked of this model, each once."""
        return tuple(dict.fromkeys(note for result in self.results for note in result.notes))

    def found(self, role: Role) -> tuple[str, ...]:
        """A backbone's sites with their layouts, or the features that a source gives."""
        return next((result.found for result in self.results if result.role == role), ())

    @property
    def left_out(self) -> tuple[str, ...]:
        """Default sites that `inject` left out of a backbone."""
        return next((result.left_out for result in self.results if result.role == "backbone"), ())

    def __str__(self) -> str:
        lines = [f"{self.model}: {len(self.results)} checks passed"]
        roles: tuple[Role, ...] = ("backbone", "source")
        for role in roles:
            names = [result.name for result in self.results if result.role == role]
            if names:
                lines += [f"  as {role}: {', '.join(names)}", f"    with {', '.join(self.found(role))}"]
        return "\n".join([*lines, *(f"  not checked: {note}" for note in self.notes)])


def iter_checks(
    *,
    as_backbone: bool = True,
    as_source: bool = True,
    checks: Sequence[str] | None = None,
    skip: Sequence[str] = (),
) -> Iterator[Check]:
    """The single checks, to parametrise tests over.

    Args:
        as_backbone: those of a backbone.
        as_source: those of a source encoder.
        checks: names of those wanted; None: all.
        skip: names of those left out.

    Raises:
        CheckError: a name that no check has.

    Examples:
        In a test file, with pytest::

            @pytest.mark.parametrize("check", iter_checks(), ids=str)
            def test_contract(check):
                check(my_model(), example_inputs=my_batch())

        >>> from mi2p_inject.testing import iter_checks
        >>> [str(check) for check in iter_checks(as_backbone=False, skip=["training"])]
        ['source-frozen', 'source-features', 'source-given_back']
    """
    names = [check.name for check in CHECKS]
    for name in (*(checks or ()), *skip):
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            raise CheckError(
                f"no check is called {name!r}",
                expected=f"some of {', '.join(names)}",
                given=name,
                fix=f"did you mean {close[0]!r}?" if close else "choose from these",
            )
    roles = {"backbone"} if as_backbone else set()
    roles |= {"source"} if as_source else set()
    chosen = set(names if checks is None else checks) - set(skip)
    return iter([check for check in CHECKS if check.role in roles and check.name in chosen])


def check_model(
    model: nn.Module,
    *,
    as_backbone: bool = True,
    as_source: bool = True,
    example_inputs: Any = None,
    checks: Sequence[str] | None = None,
    skip: Sequence[str] = (),
    **options: Any,
) -> Report:
    """Check the contract on one model: for an adapter or a unit of your own, as scikit-learn's `check_estimator`.

    The model is injected as a backbone, and attached as the source encoder of a small network; the checks say what must
    hold then. They work on copies in eval mode whose zero parameters have been given random values.

    Args:
        model: any weights, random ones too; it is not touched. Small ones are checked in seconds.
        as_backbone: inject it.
        as_source: read features from it.
        example_inputs: two samples or more, better three different ones with padding where the model knows padding: a
            tensor, a tuple of arguments or a mapping. None: the adapter's, with random content.
        checks: names of the checks to run; None: all. `iter_checks` lists them.
        skip: names of checks to leave out.
        **options: further options of `inject` for the backbone, such as `layers=`, `unit=` or `source_spec=`.

    Returns:
        What was checked, and what could not be asked of this model.

    Raises:
        ContractError: the first check that fails, with its name and the path of the module concerned.
        CheckError: an unknown check, or example inputs of fewer than two samples.
        Mi2pError: `inject` refuses the model in one of the roles; it says why.

    Examples:
        >>> import timm
        >>> from mi2p_inject.testing import check_model
        >>> report = check_model(timm.create_model("resnet10t"), checks=["identity", "features"])
        >>> print(report)
        ResNet: 2 checks passed
          as backbone: identity
            with layer1 NCHW, layer2 NCHW, layer3 NCHW, layer4 NCHW
          as source: features
            with map (B, 512, 6, 6)
    """
    subjects: dict[Role, Subject] = {}
    results = []
    for check in iter_checks(as_backbone=as_backbone, as_source=as_source, checks=checks, skip=skip):
        if check.role not in subjects:
            given = options if check.role == "backbone" else {}
            subjects[check.role] = prepare(model, check.role, example_inputs, **given)
        results.append(check(subjects[check.role]))
    return Report(type(model).__name__, tuple(results))
