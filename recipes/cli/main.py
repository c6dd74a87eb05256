"""The command `mi2p`: `mi2p --help`."""

from __future__ import annotations

import sys

from mi2p_inject.recipes.characters import print_anything

__all__ = ["main"]

_RECIPES_EXTRA = "pip install 'mi2p-inject[recipes]'"


def main() -> None:
    """Entry point of the console script; the commands themselves are in `mi2p_inject.recipes.cli.app`.

    The command line's own libraries (typer, rich) come with an extra; without them one line says how to get them.
    """
    print_anything()
    try:
        from mi2p_inject.recipes.cli.app import app

        app()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"typer", "rich"}:
            raise
        sys.exit(f"mi2p: {error.name!r} is missing; run: {_RECIPES_EXTRA}")
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted.\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
