"""What a swept model comes out as: one verdict a role, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from mi2p_inject.core.errors import Mi2pError
from mi2p_inject.testing import ContractError, LateError, check_model

__all__ = ["VERDICTS", "Answer", "Result", "Verdict", "judge"]

Role = Literal["backbone", "source"]
Verdict = Literal["ok", "refused", "silent", "crashed", "unbuilt", "memory", "time"]
VERDICTS: dict[Verdict, str] = {
    "ok": "every check passes",
    "refused": "inject says why not, and what to do",
    "silent": "accepted, and a check fails without an error: a bug of ours",
    "crashed": "an error that is not ours, or one of ours too late: a bug of ours",
    "unbuilt": "the library does not build it tiny and offline: nothing was asked",
    "memory": "ran out of the memory it was given",
    "time": "ran out of the time it was given",
}
OUT_OF_MEMORY = ("can't allocate memory", "Cannot allocate memory", "Resource temporarily unavailable")
"""What torch says of it; the last where a thread gets no stack."""
FIRST_CHARACTERS = 400


@dataclass(frozen=True)
class Answer:
    """The verdict on one role."""

    verdict: Verdict
    reason: str = ""
    what: tuple[str, ...] = ()
    """As a backbone: sites with their layouts. As a source: its features."""
    left_out: int = 0
    notes: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Answer:
        """From `Result.to_json`'s form."""
        fields: dict[str, Any] = {key: tuple(one) if isinstance(one, list) else one for key, one in data.items()}
        return cls(**fields)


@dataclass(frozen=True)
class Result:
    """One model of the sweep; JSON-ready through `to_json`."""

    name: str
    family: str
    cls: str
    backbone: Answer
    source: Answer
    seconds: float = field(default=0.0, compare=False)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form without what is empty; `from_json` reads it back."""
        data = asdict(self)
        for role in ("backbone", "source"):
            data[role] = {name: value for name, value in data[role].items() if value}
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Result:
        """Inverse of `to_json`."""
        backbone, source = (Answer.from_json(data[role]) for role in ("backbone", "source"))
        return cls(data["name"], data["family"], data["cls"], backbone, source, data["seconds"])


def judge(name: str, family: str, build: Callable[[], nn.Module], skip: Sequence[str] = ()) -> Result:
    """Build one model and check the contract in both roles; never raises but for interrupts.

    Args:
        name: of the model, for the result.
        family: its library.
        build: gives the model, random weights.
        skip: names of checks to leave out.
    """
    try:
        torch.manual_seed(0)
        model = build().eval()
    except MemoryError as error:
        answer = Answer("memory", _first_line(error))
        return Result(name, family, "", answer, answer)
    except Exception as error:
        answer = Answer("memory" if _is_memory(error) else "unbuilt", _first_line(error))
        return Result(name, family, "", answer, answer)
    cls = f"{type(model).__module__}.{type(model).__qualname__}"
    return Result(name, family, cls, _answer(model, "backbone", skip), _answer(model, "source", skip))


def _answer(model: nn.Module, role: Role, skip: Sequence[str]) -> Answer:
    try:
        report = check_model(model, as_backbone=role == "backbone", as_source=role == "source", skip=skip)
    except LateError as error:
        cause = error.__cause__ or error
        return Answer("crashed", f"after injection: {type(cause).__name__}: {_first_line(cause)}")
    except ContractError as error:
        return Answer("silent", _first_line(error))
    except Mi2pError as error:
        return Answer("refused", f"{type(error).__name__}: {_first_line(error)}")
    except MemoryError as error:
        return Answer("memory", _first_line(error))
    except Exception as error:
        return Answer("memory" if _is_memory(error) else "crashed", f"{type(error).__name__}: {_first_line(error)}")
    return Answer("ok", "", report.found(role), len(report.left_out), report.notes)


def _is_memory(error: Exception) -> bool:
    return any(words in str(error) for words in OUT_OF_MEMORY)


def _first_line(error: BaseException) -> str:
    """The message on one line: of ours the problem, what came, and the way out, however much a library said."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    if isinstance(error, Mi2pError):
        lines = [_cut(lines[0]), *(_cut(line) for line in lines[1:] if line.startswith(("given:", "fix:")))]
        return "; ".join(lines)
    return "; ".join(lines or [type(error).__name__])[:FIRST_CHARACTERS]


def _cut(line: str) -> str:
    return line if len(line) <= FIRST_CHARACTERS // 2 else f"{line[: FIRST_CHARACTERS // 2]} …"
