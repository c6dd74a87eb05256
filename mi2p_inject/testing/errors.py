"""What a check raises."""

from __future__ import annotations

from mi2p_inject.core.errors import Mi2pError

__all__ = ["CheckError", "ContractError", "LateError"]


class ContractError(Mi2pError, AssertionError):
    """A model that `inject` accepts breaks the contract.

    Args:
        what: one sentence naming what is broken.
        check: name of the check that found it.
        path: dotted path of the module concerned ("" where none is).
        expected: what the contract says.
        given: what was observed instead.
        fix: where to look.

    Examples:
        >>> from mi2p_inject.testing import ContractError
        >>> print(ContractError("the output differs", check="identity", expected="the backbone's", given="another"))
        check 'identity': the output differs
          expected: the backbone's
          given: another
    """

    def __init__(
        self, what: str, *, check: str = "", path: str = "", expected: str = "", given: str = "", fix: str = ""
    ) -> None:
        at = f" at {path!r}" if path else ""
        super().__init__(f"check {check!r}{at}: {what}", expected=expected, given=given, fix=fix)
        self.check, self.path = check, path


class LateError(ContractError):
    """An error of this library that comes after `inject` has accepted the model: it had to come before."""


class CheckError(Mi2pError, ValueError):
    """A check cannot run on what it is given: an unknown name, or inputs of fewer than two samples."""
