"""`python -m benchmarks.peers FOLDER`: a peer's own model tests, with units and without, and what fails only with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.peers.classes import TIMM, TRANSFORMERS
from benchmarks.peers.known import reason

__all__ = ["main"]

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]


def main(
    folder: Annotated[
        Path, typer.Argument(help="The unpacked sdist of timm or transformers, of the installed version.")
    ],
    only: Annotated[str, typer.Option(help="An expression of pytest's -k, for some of the tests.")] = "",
) -> None:
    """Run a peer's own model tests on models with units and a source, and name what fails only with them.

    The sdist comes from PyPI, and transformers' tests need the package `parameterized`:

    - `pip download --no-deps --no-binary :all: timm==$(python -c "import timm; print(timm.__version__)")`

    - `tar xzf timm-*.tar.gz && python -m benchmarks.peers timm-1.0.31`
    """
    folder = folder.resolve()
    timm = (folder / "timm").is_dir()
    if not timm and not (folder / "tests" / "test_modeling_common.py").is_file():
        raise typer.BadParameter(f"{folder} is no unpacked sdist of timm or transformers")
    if timm:
        classes, tests = [*TIMM], [str(folder / "tests" / "test_models.py")]
        names = " or ".join(
            name for pair in TIMM.values() for one in pair for name in (f"[{one}]", f"-{one}]", f"[{one}-")
        )
        chosen = f"({names}) and not fx" + (f" and ({only})" if only else "")
    else:
        classes, tests, chosen = (
            [f"transformers:{one}" for one in TRANSFORMERS],
            [str(HERE / "transformers_cases.py")],
            only,
        )
    alone, expanded = (_outcomes(folder, tests, chosen, one) for one in ([], classes))
    failed = [name for name, outcome in expanded.items() if _bad(outcome) and not _bad(alone.get(name, ""))]
    listed = [name for name in failed if reason(name)]
    passed = sum(outcome == "passed" for outcome in expanded.values())
    both = sum(_bad(outcome) for outcome in expanded.values()) - len(failed)
    typer.echo(
        f"{len(expanded)} tests: {passed} pass with units, {both} fail with and without, {len(failed)} only with"
    )
    for name in failed:
        typer.echo(f"{name}: {reason(name) or expanded[name]}")
    raise typer.Exit(len(failed) > len(listed))


def _bad(outcome: str) -> bool:
    return outcome.startswith("failed")


def _outcomes(folder: Path, tests: list[str], chosen: str, classes: list[str]) -> dict[str, str]:
    """Test -> outcome, of a run in a process of its own."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "outcomes.json"
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder), os.environ.get("PYTHONPATH", "")]),
            "MI2P_PEERS_CLASSES": ",".join(classes),
            "MI2P_PEERS_OUT": str(out),
            "MI2P_PEERS_FOLDER": str(folder),
            "HF_HUB_OFFLINE": "1",
        }
        command = [sys.executable, "-m", "pytest", "-q", "-p", "benchmarks.peers.plugin", "-p", "no:cacheprovider"]
        command += ["-c", os.devnull, "--rootdir", str(folder), *(["-k", chosen] if chosen else []), *tests]
        done = subprocess.run(command, cwd=place, env=env, check=False, stdout=subprocess.PIPE, text=True)
        if not out.is_file() or not (found := json.loads(out.read_text())):
            raise SystemExit(f"no test ran:\n{done.stdout[-2000:]}")
        return dict(found)


if __name__ == "__main__":
    typer.run(main)
