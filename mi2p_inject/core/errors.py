"""Every error this library raises on purpose: one base class, one message form.

Each also inherits the built-in error that fits, so that `except ValueError` works for who does not know this library.
"""

from __future__ import annotations

from mi2p_inject.core.human import printable

__all__ = [
    "AdapterError",
    "CheckpointError",
    "ExplainError",
    "FusionError",
    "HubError",
    "InjectionError",
    "InjectionWarning",
    "LayoutError",
    "Mi2pError",
    "PathwayError",
    "ProbeError",
    "RecomputeError",
    "SelectionError",
    "SiteError",
    "SourceError",
    "SweepError",
    "UnitError",
    "ZooError",
]


class Mi2pError(Exception):
    """Base of all our errors. The message says where, what was expected, what came, and what to do.

    Args:
        what: one sentence naming the problem.
        path: dotted path of the module concerned ("" where none is).
        expected: what would have been right (a shape, a kind, a range).
        given: what came instead.
        fix: what the reader can do about it.

    Examples:
        >>> from mi2p_inject.core.errors import SourceError
        >>> print(SourceError("wrong width", path="layer1", expected="768", given="384", fix="re-inject"))
        site 'layer1': wrong width
          expected: 768
          given: 384
          fix: re-inject
    """

    def __init__(self, what: str, *, path: str = "", expected: str = "", given: str = "", fix: str = "") -> None:
        lines = [f"site '{path}': {what}" if path else what]
        lines += [
            f"  {label}: {text}" for label, text in (("expected", expected), ("given", given), ("fix", fix)) if text
        ]
        super().__init__(printable("\n".join(lines)))
        self.what, self.path, self.expected, self.given, self.fix = what, path, expected, given, fix


class SelectionError(Mi2pError, ValueError):
    """`layers=` names something the backbone does not have, or nothing at all."""


class SiteError(Mi2pError, RuntimeError):
    """A site never fires, fires more than once, or its output is ignored by the backbone."""


class LayoutError(Mi2pError, ValueError):
    """A hidden state cannot be read as a map or as tokens without guessing."""


class SourceError(Mi2pError, ValueError):
    """Source features of the wrong kind, width, batch, device or dtype, or with NaN; or no source encoder."""


class UnitError(Mi2pError, ValueError):
    """A unit's options are unknown or out of range, or a kind builds no unit, or one without a fitting residual."""


class FusionError(Mi2pError, ValueError):
    """A late fusion is built or called with sizes that do not fit."""


class InjectionError(Mi2pError, RuntimeError):
    """The model cannot be injected (or ejected) in the state it is in."""


class AdapterError(Mi2pError, ValueError):
    """An adapter contradicts itself, or several adapters match one model."""


class ProbeError(Mi2pError, RuntimeError):
    """The dry run of the backbone or of the source encoder failed."""


class PathwayError(Mi2pError, ValueError):
    """Two models cannot be connected by re-parameterisation, or are no longer."""


class RecomputeError(Mi2pError, RuntimeError):
    """A site fired inside a backward pass: gradient checkpointing recomputed it without its source."""


class ExplainError(Mi2pError, ValueError):
    """Attention or an explanation is asked of a model, a forward or a sample that has none."""


class CheckpointError(Mi2pError, ValueError):
    """A checkpoint is damaged, foreign, or belongs to another backbone."""


class ZooError(Mi2pError, ValueError):
    """A name from which no model can be built: unknown, its library missing, or its hub out of reach."""


class HubError(CheckpointError, ZooError):
    """The Hub does not give or take a repository: no such one, no permission, no network."""


class SweepError(Mi2pError, RuntimeError):
    """The sweep cannot run here, or its file of results is not one of its own."""


class InjectionWarning(UserWarning):
    """Something legal that is rarely meant, such as two live expanded models over one backbone."""
