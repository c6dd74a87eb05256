"""The contract of expanded models, stated once and public: check an adapter, a unit or a model of your own."""

from __future__ import annotations

from mi2p_inject.testing.check import Check as Check
from mi2p_inject.testing.check import CheckResult as CheckResult
from mi2p_inject.testing.contract import Report as Report
from mi2p_inject.testing.contract import check_model as check_model
from mi2p_inject.testing.contract import iter_checks as iter_checks
from mi2p_inject.testing.errors import CheckError as CheckError
from mi2p_inject.testing.errors import ContractError as ContractError
from mi2p_inject.testing.errors import LateError as LateError
from mi2p_inject.testing.subject import Subject as Subject
from mi2p_inject.testing.subject import prepare as prepare

__all__ = [
    "Check",
    "CheckError",
    "CheckResult",
    "ContractError",
    "LateError",
    "Report",
    "Subject",
    "check_model",
    "iter_checks",
    "prepare",
]
