"""The errors of the recipes: what cannot be used, and a library that is not installed."""

from __future__ import annotations

from mi2p_inject.core.errors import Mi2pError

__all__ = ["LIBRARIES", "RECIPES_EXTRA", "MissingLibraryError", "RecipeError", "missing_library"]

RECIPES_EXTRA = "pip install 'mi2p-inject[recipes]'"

#: modules that the extra installs
LIBRARIES = frozenset(
    {"torchvision", "timm", "transformers", "open_clip", "accelerate", "datasets", "sklearn", "scipy", "tqdm", "PIL",
     "pyarrow", "ftfy", "fontTools", "matplotlib", "jinja2", "typer", "rich", "yaml"}
)  # fmt: skip


class RecipeError(Mi2pError, ValueError):
    """A recipe cannot go on: a missing wheel, an unusable folder, data that does not fit.

    The message says what was found, what was expected and what to do.
    """


class MissingLibraryError(RecipeError, ImportError):  # type: ignore[misc]  # both have a path
    """A library of the extra ``recipes`` is not installed."""


def missing_library(error: ModuleNotFoundError) -> str | None:
    """The library of the extra ``recipes`` that an import did not find; None where it was another one.

    Examples:
        >>> missing_library(ModuleNotFoundError(name="PIL.Image")), missing_library(ModuleNotFoundError(name="mine"))
        ('PIL', None)
    """
    name = (error.name or "").partition(".")[0]
    return name if name in LIBRARIES else None
