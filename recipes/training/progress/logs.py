"""Logs of a training in TensorBoard, Weights & Biases or MLflow, through the Trainer's own integrations."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import accelerate

from mi2p_inject.core.files.atomic_write import write_file
from mi2p_inject.core.files.read import read_regular
from mi2p_inject.recipes.config import Config
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["LOGS", "check_log", "logging_to"]

LOGS = "logs"
"""Folder of a run that has its logs."""

_PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "mlflow": ("mlflow",)}
_INSTALL = {
    "tensorboard": "pip install 'mi2p-inject[logs]'",
    "wandb": "pip install wandb",
    "mlflow": "pip install mlflow",
}
_FIX = {"wandb": "`wandb login`, or WANDB_MODE=offline", "mlflow": "check MLFLOW_TRACKING_URI"}
_MOST_BYTES = 4096


def check_log(log: str | None) -> None:
    """Whether the package that writes a log is there.

    Raises:
        RecipeError: it is missing, or switched off by an environment variable.
    """
    if log is None:
        return
    if not any(map(find_spec, _PACKAGES[log])):
        raise RecipeError(f"log={log} needs a package that is missing", given=f"no {log}", fix=_INSTALL[log])
    if log == "mlflow" and os.environ.get("DISABLE_MLFLOW_INTEGRATION", "").upper() == "TRUE":
        raise RecipeError(
            "log=mlflow is switched off by DISABLE_MLFLOW_INTEGRATION", fix="unset that variable, or leave out --log"
        )


@contextmanager
def logging_to(config: Config, folder: Path) -> Iterator[None]:
    """A block in which the Trainer's integration writes, or goes on with, the log of a run, in the first process.

    TensorBoard and wandb write below the run folder, MLflow into its tracking store; the tools' own environment
    variables hold. Where the caller is in a run of wandb or MLflow already, it is logged there, and left open.

    Args:
        config: its ``log`` says which tool; None: none.
        folder: of the run.

    Raises:
        RecipeError: the tool gives an error, such as not being logged in.
    """
    log = config.run.log
    if log is None or not accelerate.PartialState().is_main_process:
        yield
        return
    (folder / LOGS).mkdir(parents=True, exist_ok=True)
    if log == "tensorboard":
        with _variable("TENSORBOARD_LOGGING_DIR", str((folder / LOGS / log).absolute())):
            yield
        return
    module: Any = import_module(log)
    ours, failed = _active(log, module) is None, True
    try:
        if ours:
            _begin(log, module, config, folder)
        yield
        failed = False
    except Exception as error:
        if type(error).__module__.partition(".")[0] != log:
            raise
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RecipeError(f"{log} cannot log: {first}", given=type(error).__name__, fix=_FIX[log]) from error
    finally:
        if ours and _active(log, module) is not None:  # the next training in this process is another run
            _end(log, module, failed)


def _begin(log: str, module: Any, config: Config, folder: Path) -> None:
    """Begin the tool's run, or go on with the one that an interrupted training had begun."""
    place, known = folder / LOGS, folder / LOGS / f"{log}.json"
    name, earlier = "/".join(folder.absolute().parts[-2:]), _id_in(known)
    if log == "wandb":
        run = module.init(
            project=os.environ.get("WANDB_PROJECT", "mi2p"),
            name=os.environ.get("WANDB_NAME", name),
            id=os.environ.get("WANDB_RUN_ID", earlier),
            dir=os.environ.get("WANDB_DIR", str(place.absolute())),
            resume="allow",
            config={"mi2p": config.to_json()},
        )
        identifier = run.id
    else:
        tags = {f"mi2p.{option}": str(value) for option, value in config.changed().items()}
        run = module.start_run(run_id=earlier, run_name=None if earlier else name, tags=tags)
        identifier = run.info.run_id
    text = json.dumps({"id": identifier}) + "\n"
    write_file(known, lambda file: file.write_text(text, encoding="utf-8"))


def _end(log: str, module: Any, failed: bool) -> None:
    if log == "wandb":
        module.finish(exit_code=int(failed))
    else:
        module.end_run("FAILED" if failed else "FINISHED")


def _active(log: str, module: Any) -> Any:
    """The tool's run that this process is in."""
    return module.run if log == "wandb" else module.active_run()


def _id_in(path: Path) -> str | None:
    """The tool's id of this run, where an interrupted training had begun it."""
    try:
        value = json.loads(read_regular(path, _MOST_BYTES))
    except (OSError, ValueError):
        return None
    return cast(str, value["id"]) if isinstance(value, dict) and str(value.get("id")).isalnum() else None


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """An environment variable for a block, unless the user has set it."""
    if name in os.environ:
        yield
        return
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)
