"""Where the runs of a set lie in its folder; light, for messages before anything is imported."""

from __future__ import annotations

from pathlib import Path

from mi2p_inject.recipes.saving.run_folder import EXPERIMENTS, FINISHED

__all__ = ["finished_runs", "folder_of", "what_is_kept"]

_SEED = "seed-"


def folder_of(out: Path, experiment: str, seed: int) -> Path:
    """The run folder of an experiment with a seed, finished or not."""
    return out / EXPERIMENTS / experiment / f"{_SEED}{seed}"


def finished_runs(out: Path) -> dict[str, list[int]]:
    """Experiment -> seeds of its finished runs, sorted."""
    found: dict[str, list[int]] = {}
    for mark in (out / EXPERIMENTS).glob(f"*/{_SEED}*/{FINISHED}"):
        seed = mark.parent.name.removeprefix(_SEED)
        if seed.isdecimal():
            found.setdefault(mark.parent.parent.name, []).append(int(seed))
    return {name: sorted(seeds) for name, seeds in sorted(found.items())}


def what_is_kept(out: Path) -> str:
    """For whoever interrupts a set."""
    runs = [f"{name} seed {seed}" for name, seeds in finished_runs(out).items() for seed in seeds]
    named = f" ({', '.join(runs)})" if runs else ""
    return f"Interrupted: {len(runs)} finished runs kept in {out}{named}; the same command goes on from there."
