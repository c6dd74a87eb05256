"""`python -m benchmarks.systems`: what a training step of every system costs, ours and those of the literature."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from benchmarks.measure import Step, in_process, peak_of, seconds_of
from mi2p_inject.core.files.atomic_write import write_file

__all__ = ["SYSTEMS_MEASURED", "cost_of", "main", "markdown"]

#: name of the line -> options of the model
SYSTEMS_MEASURED: dict[str, dict[str, Any]] = {
    **{name: {"model": name} for name in ("vision", "text")},
    **{
        fusion: {"model": "late-fusion", "fusion": fusion}
        for fusion in ("concat", "gmu", "compact-bilinear", "gated-bilinear")
    },
    **{name: {"model": name} for name in ("centralnet", "mmbt", "visualbert", "pixelbert", "interbert", "vilt")},
    **{name: {"model": name} for name in ("me-vision", "me-text")},
    "me-fusion": {"model": "me-fusion", "fusion": "concat"},
}

_CLASSES = tuple(f"class {number}" for number in range(10))


def cost_of(name: str, setting: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Parameters that train, seconds of a training step and MB at its peak; call it in a fresh process.

    Args:
        name: of `SYSTEMS_MEASURED`.
        setting: vision, text, image_size, max_length and batch.
        rounds: steps that are timed.
    """
    counted: dict[str, Any] = {}

    def build() -> Step:
        step, counted["parameters"] = _step(name, setting)
        counted["step"] = step
        return step

    peak = peak_of(build, runs=2)
    seconds = [seconds_of(counted["step"]) for _ in range(rounds)]
    return {
        "name": name,
        "parameters": counted["parameters"],
        "seconds": statistics.median(seconds),
        "fastest": min(seconds),
        "megabytes": peak,
    }


def markdown(costs: list[dict[str, Any]]) -> str:
    """The table of some costs.

    Example:
        >>> print(markdown([{"name": "a", "parameters": 1500, "seconds": 0.5, "fastest": 0.4, "megabytes": 20.4}]))
        | system | trained parameters | step, seconds: median (fastest) | peak memory, MB |
        |---|---|---|---|
        | a | 1,500 | 0.500 (0.400) | 20 |
    """
    lines = ["| system | trained parameters | step, seconds: median (fastest) | peak memory, MB |", "|---|---|---|---|"]
    for one in costs:
        step = f"{one['seconds']:.3f} ({one['fastest']:.3f})"
        lines.append(f"| {one['name']} | {one['parameters']:,} | {step} | {one['megabytes']:.0f} |")
    return "\n".join(lines)


def main(
    vision: Annotated[str, typer.Option(help="Image encoder.")] = "demo",
    text: Annotated[str, typer.Option(help="Text encoder.")] = "demo",
    image_size: Annotated[int, typer.Option(help="Side in pixels.")] = 224,
    tokens: Annotated[int, typer.Option(help="Tokens of a text.")] = 32,
    batch: Annotated[int, typer.Option(help="Samples of a batch.")] = 16,
    rounds: Annotated[int, typer.Option(help="Steps that are timed.")] = 5,
    only: Annotated[str, typer.Option(help="Names, with commas; all by default.")] = "",
    out: Annotated[Path | None, typer.Option(help="A Markdown file for the table.")] = None,
) -> None:
    """Measure a training step (forward, loss, backward, AdamW) of every system at the same batch, each in a process of
    its own.

    Example: `python -m benchmarks.systems --batch 8 --only concat,mmbt,me-fusion`
    """
    console = Console()
    wanted = only.split(",") if only else list(SYSTEMS_MEASURED)
    if unknown := set(wanted) - set(SYSTEMS_MEASURED):
        raise typer.BadParameter(f"no system {', '.join(sorted(unknown))}; there are {', '.join(SYSTEMS_MEASURED)}")
    setting = {"vision": vision, "text": text, "image_size": image_size, "max_length": tokens, "batch": batch}
    costs = []
    for name in wanted:
        costs.append(in_process(cost_of, name, setting, rounds))
        console.print(f"{name}: {costs[-1]['fastest']:.3f} s, {costs[-1]['megabytes']:.0f} MB", highlight=False)
    if out is not None:
        page = markdown(costs)
        write_file(out, lambda path: path.write_text(page + "\n", encoding="utf-8"))
    console.print(markdown(costs), highlight=False, soft_wrap=True)


def _step(name: str, setting: dict[str, Any]) -> tuple[Step, int]:
    """A training step, and how many parameters train."""
    from mi2p_inject.recipes.config import make_config
    from mi2p_inject.recipes.systems import build_system
    from mi2p_inject.recipes.systems.inputs import Collator
    from mi2p_inject.recipes.tasks import SingleLabel
    from mi2p_inject.recipes.training.optimizer import make_optimizer
    from mi2p_inject.recipes.training.train import load_encoders, quiet

    quiet()

    torch.manual_seed(0)
    count = setting["batch"]
    given = {key: value for key, value in setting.items() if key != "batch"}
    config = make_config({"data": "-", **given, **SYSTEMS_MEASURED[name]})
    encoders = load_encoders(config)
    task = SingleLabel(_CLASSES)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = build_system(config, encoders, task).to(device).train()
    optimizer = make_optimizer(model, config.optimisation)
    words = " ".join(["word"] * setting["max_length"])  # a token each, cut at the limit
    specs: dict[str, Any] = {modality: encoder.spec for modality, encoder in encoders.items()}
    collator = Collator(specs.get("image"), specs.get("text"), task)
    pixels = torch.randn(3, setting["image_size"], setting["image_size"])
    items = [{"id": row, "pixels": pixels, "bad": None, "text": words, "label": row % 10} for row in range(count)]
    inputs: dict[str, Any] = {key: value.to(device) for key, value in collator(items).items()}

    def step() -> object:
        optimizer.zero_grad()
        model(**inputs)["loss"].backward()
        return optimizer.step()

    return step, sum(one.numel() for one in model.parameters() if one.requires_grad)


if __name__ == "__main__":
    typer.run(main)
