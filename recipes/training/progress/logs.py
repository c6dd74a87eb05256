"""Logs of a training in TensorBoard, Weights & Biases or MLflow, through the Trainer's own integrations."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import transformers

from mi2p_inject.core.files.atomic_write import write_file
from mi2p_inject.core.files.read import read_regular
from mi2p_inject.recipes.config import Config
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["LOGS", "LogId", "check_log", "logging_to", "run_name"]

LOGS = "logs"
"""Folder of a run that has its logs."""

_PROJECT = "mi2p"
_PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "mlflow": ("mlflow",)}
_INSTALL = {
    "tensorboard": "pip install 'mi2p-inject[logs]'",
    "wandb": "pip install wandb",
    "mlflow": "pip install mlflow",
}
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


def run_name(folder: Path) -> str:
    """What a run is called in a log: the end of its folder's path."""
    return "/".join(folder.absolute().parts[-2:])


@contextmanager
def logging_to(config: Config, folder: Path) -> Iterator[None]:
    """A block in which the Trainer's integration writes, or goes on with, the log of a run.

    What the user has set by the tool's own environment variables stays. TensorBoard and wandb write below the run
    folder, MLflow into its tracking store.

    Args:
        config: its ``log`` says which one; None: none.
        folder: of the run.

    Raises:
        RecipeError: the tool gives an error, such as not being logged in.
    """
    log = config.run.log
    if log is None:
        yield
        return
    (folder / LOGS).mkdir(parents=True, exist_ok=True)
    settings = {name: value for name, value in _settings(log, config, folder).items() if name not in os.environ}
    ours = _active(log) is None
    os.environ.update(settings)
    failed = True
    try:
        yield
        failed = False
    except Exception as error:
        if type(error).__module__.partition(".")[0] != log:
            raise
        raise RecipeError(
            f"{log} cannot write its log: {(str(error).strip() or type(error).__name__).splitlines()[0]}",
            given=type(error).__name__,
            fix="wandb login, or WANDB_MODE=offline"
            if log == "wandb"
            else "see MLFLOW_TRACKING_URI, or leave out --log",
        ) from error
    finally:
        for name in settings:
            os.environ.pop(name, None)
        if ours:
            _end(log, failed)


class LogId(transformers.TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Keeps which run of the tool this log is, so that a resumed training goes on with it.

    Args:
        config: shown in wandb beside the Trainer's arguments.
        folder: of the run.
    """

    def __init__(self, config: Config, folder: Path) -> None:
        self._config, self._folder = config, folder

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After the integration's own: it has begun its run."""
        log = self._config.run.log
        active = None if log is None or not state.is_world_process_zero else _active(log)
        if log is None or active is None:
            return
        if log == "wandb":
            active.config.update({"mi2p": self._config.to_json()}, allow_val_change=True)
        known = {"id": active.id if log == "wandb" else active.info.run_id}
        write_file(_known(self._folder, log), lambda file: file.write_text(json.dumps(known) + "\n", encoding="utf-8"))


def _settings(log: str, config: Config, folder: Path) -> Mapping[str, str]:
    """Environment variables by which the integrations are told where and what."""
    place, earlier = (folder / LOGS).absolute(), _earlier(folder, log)
    if log == "tensorboard":
        return {"TENSORBOARD_LOGGING_DIR": str(place / "tensorboard")}
    if log == "wandb":
        goes_on = {"WANDB_RUN_ID": earlier, "WANDB_RESUME": "allow"} if earlier else {}
        return {"WANDB_PROJECT": _PROJECT, "WANDB_DIR": str(place), **goes_on}
    options = {f"mi2p.{name}": str(value) for name, value in config.changed().items()}
    goes_on = {"MLFLOW_RUN_ID": earlier} if earlier else {}
    return {"MLFLOW_EXPERIMENT_NAME": _PROJECT, "MLFLOW_TAGS": json.dumps(options), **goes_on}


def _known(folder: Path, log: str) -> Path:
    return folder / LOGS / f"{log}.json"


def _earlier(folder: Path, log: str) -> str | None:
    """The tool's id of this run, where an interrupted training had begun it."""
    try:
        value = json.loads(read_regular(_known(folder, log), _MOST_BYTES))
    except (OSError, ValueError):
        return None
    found = value.get("id") if isinstance(value, dict) else None
    return found if isinstance(found, str) and found.isalnum() else None


def _active(log: str) -> Any:
    """The run that the tool is in; None for TensorBoard, which has none."""
    if log == "tensorboard":
        return None
    module = cast(Any, import_module(log))
    return module.run if log == "wandb" else module.active_run()


def _end(log: str, failed: bool) -> None:
    """End the run that the integration began: the next training in this process is another one."""
    if _active(log) is None:
        return
    module = cast(Any, import_module(log))
    if log == "wandb":
        module.finish(exit_code=int(failed))
    else:
        module.end_run("FAILED" if failed else "FINISHED")
