"""`mi2p doctor`: what is installed here, what computes, how much room there is, and what is missing for what."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import typer

import mi2p_inject

__all__ = ["doctor"]

_DISTRIBUTION = "mi2p-inject"
_EXTRAS = {
    "recipes": "the command mi2p: data, training, tables",
    "demo": "weights and pictures that come as wheels",
    "logs": "TensorBoard logs",
    "export": "mi2p export --onnx",
    "app": "mi2p app: a page in the browser",
}
_LOG_LIBRARIES = ("tensorboard", "wandb", "mlflow")
_ENCODER_LIBRARIES = ("torch", "torchvision", "timm", "transformers", "open_clip_torch")
_LITTLE_ROOM = 5e9
_MEMORY = Path("/proc/meminfo")


def doctor() -> None:
    """Print versions, device, memory, free disk, and what is missing for which part.

    The exit code is 1 where something that the recipes need is missing.
    """
    for line in (*_versions(), *_machine(), *_room()):
        typer.echo(line)
    needed = False
    for extra, what in _EXTRAS.items():
        missing = _missing(extra)
        needed |= bool(missing) and extra == "recipes"
        state = f"missing {', '.join(missing)}: pip install '{_DISTRIBUTION}[{extra}]'" if missing else "complete"
        typer.echo(f"{extra} ({what}): {state}")
    logs = ", ".join(f"{name} {_version(name) or 'not installed'}" for name in _LOG_LIBRARIES)
    typer.echo(f"mi2p train --log: {logs}")
    if needed:
        raise typer.Exit(1)


def _versions() -> Iterator[str]:
    yield f"{_DISTRIBUTION} {mi2p_inject.__version__} in {Path(mi2p_inject.__file__).parent}"
    yield f"Python {platform.python_version()} on {platform.platform()}"
    yield ", ".join(f"{name} {_version(name) or 'not installed'}" for name in _ENCODER_LIBRARIES)


def _machine() -> Iterator[str]:
    import torch

    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    device = ", ".join(names) if names else f"{accelerator or 'none'}"
    bf16 = "" if not names else f", bf16 {'yes' if torch.cuda.is_bf16_supported() else 'no'}"
    yield f"accelerator: {device}{bf16}; {os.cpu_count()} CPU cores, {torch.get_num_threads()} threads"
    if _MEMORY.is_file() and (free := re.search(r"MemAvailable:\s+(\d+) kB", _MEMORY.read_text())):
        yield f"memory: {int(free[1]) / 1e6:.1f} GB available"


def _room() -> Iterator[str]:
    cache = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    offline = [
        name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(name) in ("1", "true", "yes")
    ]
    for what, folder in (("here", Path.cwd()), ("Hugging Face cache", cache)):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(there).free
        little = "; that is little: a run with weights takes about three times its model" if free < _LITTLE_ROOM else ""
        writable = "" if os.access(there, os.W_OK) else "; it cannot be written"
        yield f"{what}, {folder}: {free / 1e9:.1f} GB free{little}{writable}"
    yield f"hub: {'offline, by ' + ' and '.join(offline) if offline else 'asked where a name is no local folder'}"


def _missing(extra: str) -> list[str]:
    """Distributions that an extra names and that are not installed, those of the extras in it too."""
    found: list[str] = []
    for requirement in importlib.metadata.requires(_DISTRIBUTION) or ():
        spec, _, marker = requirement.partition(";")
        if not re.search(rf"""extra\s*==\s*['"]{extra}['"]""", marker):
            continue
        name = re.split(r"[\s\[<>=!~(]", spec.strip(), maxsplit=1)[0]
        inner = re.search(r"\[([^\]]*)\]", spec)
        if name == _DISTRIBUTION:
            found += [one for part in (inner[1] if inner else "").split(",") for one in _missing(part.strip())]
        elif _version(name) is None:
            found.append(name)
    return list(dict.fromkeys(found))


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
