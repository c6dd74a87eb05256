"""On two processes: three steps of both expanded models, whole with a doubled batch and sharded."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from mi2p_inject.recipes.config import make_config
from mi2p_inject.recipes.systems import SystemModel, build_system
from mi2p_inject.recipes.tasks import SingleLabel
from mi2p_inject.recipes.training.train import load_encoders

SETTINGS = {"model": "me-fusion", "vision": "tiny:vit", "text": "tiny:xlnet", "image_size": 32, "zero_init": "none"}


def built() -> SystemModel:
    config = make_config({"data": "-", "dropout": 0.0, **SETTINGS})
    torch.manual_seed(0)
    return build_system(config, load_encoders(config), SingleLabel(("a", "b", "c")))


def batch(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    here, ids = torch.ones(4, dtype=torch.bool), torch.randint(1000, 2000, (4, 7), generator=generator)
    pixels = torch.randn(4, 3, 32, 32, generator=generator)
    text = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "text_present": here}
    return {"pixel_values": pixels, "image_present": here, **text, "labels": torch.tensor([0, 1, 2, 0])}


def losses(model: SystemModel, given: dict[str, Tensor]) -> list[float]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = []
    for _ in range(3):
        loss = model(**given)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        found.append(mean.item() / 2)
    return found


def main(out: Path) -> None:
    """Write both curves as JSON."""
    both = {name: torch.cat([batch(0)[name], batch(1)[name]]) for name in batch(0)}
    whole = losses(built(), both)
    model, mesh = built(), init_device_mesh("cpu", (2,))
    for part in (*model.branches.values(), model):
        fully_shard(part, mesh=mesh)
    sharded = losses(model, batch(dist.get_rank()))
    if dist.get_rank() == 0:
        all_sharded = all(isinstance(parameter, DTensor) for parameter in model.parameters())
        out.write_text(json.dumps({"whole": whole, "sharded": sharded, "all_sharded": all_sharded}))
