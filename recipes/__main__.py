"""``python -m mi2p_inject.recipes`` is `mi2p`: for ``torchrun --nproc-per-node 2 -m mi2p_inject.recipes train ...``."""

from __future__ import annotations

from mi2p_inject.recipes.cli.main import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
