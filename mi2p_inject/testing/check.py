"""One check of the contract: a function with a name, a role, and the contract's statement as its docstring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from mi2p_inject.core.errors import Mi2pError
from mi2p_inject.testing.errors import CheckError, LateError
from mi2p_inject.testing.inputs import preserved_random_state
from mi2p_inject.testing.subject import Role, Subject, Trial, prepare

__all__ = ["Check", "CheckResult"]


@dataclass(frozen=True)
class CheckResult:
    """What one check found in a model that keeps the contract.

    Attributes:
        name: of the check.
        role: what the model was checked as.
        notes: what could not be asked of this model, and why.
        found: a backbone's sites with their layouts, or the features that a source gives.
        left_out: default sites that `inject` left out.
    """

    name: str
    role: Role
    notes: tuple[str, ...] = ()
    found: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """One check; calling it on a model runs it.

    Attributes:
        name: such as "identity".
        role: "backbone" or "source": what a model is checked as.
        function: what runs.

    Examples:
        >>> import timm
        >>> from mi2p_inject.testing import iter_checks
        >>> check = next(iter_checks())
        >>> str(check), check(timm.create_model("resnet10t")).notes
        ('backbone-identity', ())
    """

    name: str
    role: Role
    function: Callable[[Trial], None]

    @property
    def contract(self) -> str:
        """The contract that is checked, in words."""
        return " ".join((self.function.__doc__ or "").split("\n\n")[0].split())

    def __str__(self) -> str:
        return f"{self.role}-{self.name}"

    def __call__(self, model: nn.Module | Subject, *, example_inputs: Any = None, **options: Any) -> CheckResult:
        """Run this check.

        Args:
            model: a model, or one that `prepare` made ready for this role.
            example_inputs: as for `check_model`.
            **options: of `inject`, where the model is the backbone.

        Raises:
            ContractError: the contract is broken.
            Mi2pError: `inject` refuses the model; nothing was checked.
        """
        if not isinstance(model, Subject):
            model = prepare(model, self.role, example_inputs, **(options if self.role == "backbone" else {}))
        if model.role != self.role:
            raise CheckError(
                "the model was prepared for the other role",
                expected=self.role,
                given=model.role,
                fix=f"prepare(model, {self.role!r})",
            )
        trial = Trial(model, self.name)
        try:
            with preserved_random_state():
                self.function(trial)
        except AssertionError:
            raise
        except Mi2pError as error:
            if error is trial.refusal:
                raise
            raise LateError(
                "an error after inject has accepted the model",
                check=self.name,
                path=error.path,
                expected="an error from inject, or none",
                given=f"{type(error).__name__}: {str(error).splitlines()[0]}",
                fix="inject must refuse such a model: report this with the model's class",
            ) from error
        return CheckResult(self.name, self.role, tuple(trial.notes), trial.found, trial.left_out)
