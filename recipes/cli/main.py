"""The command `mi2p`: `mi2p --help`."""

from __future__ import annotations

import sys

from mi2p_inject.recipes.characters import print_anything
from mi2p_inject.recipes.errors import RECIPES_EXTRA, missing_library

__all__ = ["main"]


def main() -> None:
    """Entry point of the console script; the commands themselves are in `mi2p_inject.recipes.cli.app`.

    Their libraries come with an extra; without one of them one line says how to get it.
    """
    print_anything()
    try:
        from mi2p_inject.recipes.cli.app import app

        app()
    except ModuleNotFoundError as error:
        if (library := missing_library(error)) is None:
            raise
        sys.exit(f"mi2p: {library!r} is missing; run: {RECIPES_EXTRA}")
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted.\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
