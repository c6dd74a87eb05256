"""Weights, gradients and optimizer state spread over the processes (torch's FSDP2), and gathered into the usual run.

Checkpoints on the way are written by every process for itself, as safetensors: nothing of them is pickled. The model is
built whole in each process, as it is for one; what is trained is a copy of it, whose weights come back when it is done.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mi2p_inject.expansion.expanded_model import ExpandedModel
from mi2p_inject.inspection.resolve import resolve
from mi2p_inject.recipes.config import RunConfig
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.systems import SystemModel
from mi2p_inject.recipes.systems.branch import Branch
from mi2p_inject.recipes.training.hf_trainer import OurTrainer

__all__ = ["ShardedTrainer", "check_launch", "gather", "shard"]

_GROUPS = "groups"
_OTHERS = {"ACCELERATE_USE_FSDP": "Accelerate's FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}


def check_launch(run: RunConfig) -> None:
    """Refuse a launch that this training cannot resume from or would silently not follow.

    Raises:
        RecipeError: Accelerate is told to shard by itself, or there is one process to shard over.
    """
    for variable, what in _OTHERS.items():
        if os.environ.get(variable, "false").lower() in ("1", "true"):
            raise RecipeError(
                f"this training does not shard through {what}: it writes checkpoints of its own, to resume from",
                expected="torchrun or accelerate launch for several processes, and sharding=fsdp to shard",
                given=f"{variable}={os.environ[variable]}",
                fix="launch it without that plug-in, and give --set sharding=fsdp",
            )
    if run.sharding == "fsdp" and int(os.environ.get("WORLD_SIZE", "1")) < 2:
        raise RecipeError(
            "sharding=fsdp needs several processes to shard over",
            given="one process",
            fix="torchrun --nproc-per-node 2 -m mi2p_inject.recipes train ..., or sharding=none",
        )


def shard(model: SystemModel, device: torch.device) -> SystemModel:
    """A copy of a model with its weights spread over all processes; the frozen source encoders are shared with it.

    Each default site of an encoder (a block, a stage) is gathered for its own forward and backward only; what is
    outside of them is gathered with its branch.

    Args:
        model: as every process has built it.
        device: of this process.

    Raises:
        RecipeError: a parameter is a single number, which cannot be spread.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if scalars := [name for name, one in model.named_parameters() if not one.dim()]:
        raise RecipeError(
            f"sharding=fsdp cannot spread {scalars[0]}, a single number without an axis",
            expected="parameters of one axis or more",
            given=f"{len(scalars)} without",
            fix="sharding=none, or another encoder",
        )
    frozen = [one.source.encoder for one in model.sources().values()]
    copied: SystemModel = copy.deepcopy(model, {id(one): one for one in frozen}).to(device)
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for module in (*_blocks(copied), *_branches(copied), copied):
        if any(True for _ in module.parameters()):
            fully_shard(module, mesh=mesh)
    copied.register_forward_pre_hook(lambda module, _: _share_buffers(module))
    return copied


def gather(sharded: SystemModel, model: SystemModel) -> None:
    """Put the weights of the sharded copy into the model that it was made of, in every process."""
    _share_buffers(sharded)
    own = model.state_dict()
    with torch.no_grad():
        for name, value in sharded.state_dict().items():
            own[name].copy_(value.full_tensor() if hasattr(value, "full_tensor") else value)


class ShardedTrainer(OurTrainer):
    """The trainer of a sharded model: each process keeps and reads its own part of a checkpoint."""

    def __init__(self, config: Any, **given: Any) -> None:
        super().__init__(config, **given)
        prepare = self.accelerator.prepare_model  # it would wrap the model in DistributedDataParallel
        self.accelerator.prepare_model = lambda model, **options: prepare(model, **options | {"evaluation_mode": True})

    def load_weights(self, folder: Path) -> None:
        """Put the weights of a checkpoint into the model."""
        with _opened(folder) as file, torch.no_grad():
            for name, value in self.model.state_dict().items():
                _local(value).copy_(file.get_tensor(f"model.{name}"))

    def _move_model_to_device(self, model: Any, device: Any) -> None:
        """It is where it belongs."""

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)
        return norm.full_tensor() if hasattr(norm, "full_tensor") else norm

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        Path(output_dir or self.args.output_dir).mkdir(parents=True, exist_ok=True)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / "scheduler.pt")
        state = self.optimizer.state_dict()
        tensors = {f"model.{name}": _local(value).contiguous() for name, value in self.model.state_dict().items()}
        for number, values in state["state"].items():
            tensors |= {f"optimizer.{number}.{name}": _local(value).contiguous() for name, value in values.items()}
        save_file(_apart(tensors), _file(Path(output_dir)), {_GROUPS: json.dumps(state["param_groups"])})
        self.accelerator.wait_for_everyone()  # trainer_state.json, which says that a checkpoint is whole, comes later

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self.load_weights(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        self.load_weights(Path(str(self.state.best_model_checkpoint)))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        folder = Path(checkpoint)
        self.lr_scheduler.load_state_dict(torch.load(folder / "scheduler.pt", weights_only=True))
        parameters = [one for group in self.optimizer.param_groups for one in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        with _opened(folder) as file:
            for key in (key for key in file.keys() if key.startswith("optimizer.")):  # noqa: SIM118  # it is no dict
                _, number, name = key.split(".", 2)
                state.setdefault(int(number), {})[name] = _like(parameters[int(number)], file.get_tensor(key))
            groups = json.loads(file.metadata()[_GROUPS])
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})


def _branches(model: SystemModel) -> list[nn.Module]:
    return [one for one in model.modules() if isinstance(one, Branch)]


def _blocks(model: SystemModel) -> Iterator[nn.Module]:
    """The modules at the default sites of the branches' encoders: each runs once in a forward, by being called."""
    for branch in _branches(model):
        network = branch.network
        backbone = network.backbone if isinstance(network, ExpandedModel) else network
        for path in resolve(backbone, required=False).default_paths:  # type: ignore[arg-type]
            yield backbone.get_submodule(path)  # type: ignore[union-attr]


def _share_buffers(model: nn.Module) -> None:
    """Every process goes on with the first one's running statistics, as under DistributedDataParallel."""
    for buffer in model.buffers():
        dist.broadcast(buffer, 0)


def _local(value: Any) -> Tensor:
    """This process's part of a tensor; all of one that is not sharded."""
    found: Tensor = value.detach()
    return found.to_local() if hasattr(found, "to_local") else found


def _like(parameter: Tensor, part: Tensor) -> Tensor:
    """A part of a parameter's optimizer state as a tensor that is sharded as the parameter is."""
    from torch.distributed.tensor import DTensor

    if not isinstance(parameter, DTensor) or part.shape != parameter.to_local().shape:
        return part  # a number of steps
    mesh, placements = parameter.device_mesh, parameter.placements
    part = part.to(parameter.to_local().device)
    return DTensor.from_local(part, mesh, placements, shape=parameter.shape, stride=parameter.stride())


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tied tensors as copies, which a safetensors file asks for."""
    seen: set[int] = set()
    for name, value in tensors.items():
        if value.numel() and value.untyped_storage().data_ptr() in seen:
            tensors[name] = value.clone()
        seen.add(value.untyped_storage().data_ptr())
    return tensors


def _file(folder: Path) -> Path:
    return folder / f"shard-{dist.get_rank()}-of-{dist.get_world_size()}.safetensors"


def _opened(folder: Path) -> Any:
    try:
        return safe_open(_file(folder), "pt")
    except (OSError, SafetensorError) as error:
        others = sorted(path.name for path in folder.glob("shard-*"))
        raise RecipeError(
            f"this process finds no part of the sharded checkpoint {folder}: {error}",
            expected=_file(folder).name,
            given=", ".join(others) or "none",
            fix="go on with as many processes as it was written by, and sharding as it was",
        ) from error
