"""`python -m benchmarks.systems`: what a training step of every system costs, ours and those of the literature."""

from __future__ import annotations

import datetime
import json
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from benchmarks.__main__ import machine
from benchmarks.measure import Step, in_process, peak_of, side_by_side
from benchmarks.render import machine_line
from mi2p_inject.core.files.atomic_write import write_file

__all__ = ["BASES", "BEGIN", "END", "SYSTEMS_MEASURED", "cost_of", "main", "markdown", "render", "section"]

#: name of the line -> options of the model
SYSTEMS_MEASURED: dict[str, dict[str, Any]] = {
    **{name: {"model": name} for name in ("vision", "text")},
    **{
        fusion: {"model": "late-fusion", "fusion": fusion}
        for fusion in ("score", "concat", "cross-attention", "gmu", "compact-bilinear", "gated-bilinear")
    },
    **{name: {"model": name} for name in ("centralnet", "mmbt", "visualbert", "pixelbert", "interbert", "vilt")},
    **{name: {"model": name} for name in ("me-vision", "me-text")},
    **{name: {"model": name, "fusion": "concat"} for name in ("me-vision+text", "vision+me-text", "me-fusion")},
    "vit-384": {"model": "vision", "vision": "tiny:vit-384"},
    "vit-384 + pathway": {"model": "vision", "vision": "tiny:vit-384", "auxiliary": "demo"},
}

#: name of the line -> that of the line whose step it is timed beside; all others: `concat`
BASES = {"vit-384": "vit-384", "vit-384 + pathway": "vit-384"}
BEGIN, END = "<!-- docs/systems.json -->", "<!-- end -->"

_CLASSES = tuple(f"class {number}" for number in range(10))
_DOCS = Path("docs")


def cost_of(name: str, setting: Mapping[str, Any], rounds: int) -> dict[str, Any]:
    """What a training step of a system costs; call it in a fresh process.

    Args:
        name: of `SYSTEMS_MEASURED`.
        setting: vision, text, image_size, max_length and batch.
        rounds: steps that are timed, each right beside a step of the line that `BASES` names.

    Returns:
        ``parameters`` that train and ``all_parameters``, ``seconds`` of a step (median) and the ``fastest``,
        ``megabytes`` at its peak; ``base``, and in parts of the base's step ``ratio``, the median of the pairs, and
        ``spread``, their quartiles.
    """
    counted: dict[str, Any] = {}

    def build() -> Step:
        step, counted["parameters"], counted["all_parameters"] = _step(name, setting)
        counted["step"] = step
        return step

    peak = peak_of(build, runs=2)
    base = BASES.get(name, "concat")
    step = counted.pop("step")
    beside = step if base == name else _step(base, setting)[0]
    found = side_by_side(beside, step, rounds=rounds, warmup_rounds=1)
    return {
        "name": name,
        **counted,
        "seconds": statistics.median(found.ours),
        "fastest": min(found.ours),
        "megabytes": peak,
        "base": base,
        "ratio": 1.0 if base == name else found.ratio,
        "spread": [1.0, 1.0] if base == name else list(found.spread),
    }


def markdown(costs: Sequence[Mapping[str, Any]]) -> str:
    """The table of some costs.

    Example:
        >>> one = {"parameters": 15, "all_parameters": 1500, "seconds": 0.5, "fastest": 0.4, "megabytes": 20.4}
        >>> two = one | {"seconds": 1.0, "megabytes": 10.2}
        >>> same, twice = {"ratio": 1.0, "spread": [1.0, 1.0]}, {"ratio": 2.1, "spread": [2.0, 2.2]}
        >>> costs = [{"name": "concat", "base": "concat"} | one | same, {"name": "b", "base": "concat"} | two | twice]
        >>> print(markdown(costs))
        | system | parameters that train, of all | step, seconds (fastest) | ÷ `concat` | peak memory, MB | ÷ `concat` |
        |---|---|---|---|---|---|
        | concat | 15 of 1,500 | 0.500 (0.400) | 1 | 20 | 1 |
        | b | 15 of 1,500 | 1.000 (0.400) | 2.10 (2.00–2.20) | 10 | 0.50 |
    """
    lines = [
        "| system | parameters that train, of all | step, seconds (fastest) | ÷ `concat` | peak memory, MB "
        "| ÷ `concat` |",
        "|---|---|---|---|---|---|",
    ]
    memory = {one["name"]: one["megabytes"] for one in costs}
    for one in costs:
        parameters = f"{one['parameters']:,} of {one['all_parameters']:,}"
        step = f"{one['seconds']:.3f} ({one['fastest']:.3f})"
        base, (low, high) = one["base"], one["spread"]
        if base == one["name"]:
            time = room = "1" if base == "concat" else "–"
        else:
            suffix = "" if base == "concat" else f" of `{base}`"
            time = f"{one['ratio']:.2f} ({low:.2f}–{high:.2f}){suffix}"
            room = f"{one['megabytes'] / memory[base]:.2f}{suffix}" if base in memory else "–"
        lines.append(f"| {one['name']} | {parameters} | {step} | {time} | {one['megabytes']:.0f} | {room} |")
    return "\n".join(lines)


def section(data: Mapping[str, Any] | None) -> str:
    """What stands between `BEGIN` and `END` of docs/systems.md.

    Args:
        data: what `main` wrote; None: nothing was measured.
    """
    if data is None:
        return "Not measured yet: `python -m benchmarks.systems`."
    setting = data["setting"]
    busy = f" The machine was shared with other work (load {data['load']:.1f})." if data["load"] > 1 else ""
    text = (
        f"A training step (forward, loss, backward, AdamW) on {setting['batch']} samples of {setting['image_size']} "
        f"pixels and {setting['max_length']} tokens, encoders `{setting['vision']}` and `{setting['text']}`, each "
        "system in a process of its own. A frozen source encodes in every step, as without a source cache. The ratio "
        "of times is that of steps run in turn with `concat`: the median of the pairs, and their quartiles. Memory is "
        "beyond what the libraries take. `vit-384` is a vision transformer of MiniLM's widths, alone and with "
        f"`auxiliary=demo`.{busy} Every number is in [systems.json](systems.json)."
    )
    return "\n".join([text, "", machine_line(dict(data)), "", markdown(data["systems"])])


def render(folder: Path = _DOCS) -> None:
    """Write the section of systems.md from the systems.json beside it."""
    results, page = folder / "systems.json", folder / "systems.md"
    data = json.loads(results.read_text(encoding="utf-8")) if results.exists() else None
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    text = f"{before}{BEGIN}\n{section(data)}\n{END}{rest.split(END)[1]}"
    write_file(page, lambda path: path.write_text(text, encoding="utf-8"))


def main(
    vision: Annotated[str, typer.Option(help="Image encoder.")] = "demo",
    text: Annotated[str, typer.Option(help="Text encoder.")] = "demo",
    image_size: Annotated[int, typer.Option(help="Side in pixels.")] = 224,
    tokens: Annotated[int, typer.Option(help="Tokens of a text.")] = 32,
    batch: Annotated[int, typer.Option(help="Samples of a batch.")] = 16,
    rounds: Annotated[int, typer.Option(help="Steps that are timed.")] = 5,
    only: Annotated[str, typer.Option(help="Names, with commas; the file's other lines are kept.")] = "",
    page: Annotated[bool, typer.Option("--page", help="Measure nothing, write the page's section again.")] = False,
    out: Annotated[Path, typer.Option(help="The JSON; a systems.md beside it gets the table.")] = _DOCS
    / "systems.json",
) -> None:
    """Measure a training step (forward, loss, backward, AdamW) of every system at the same batch, each in a process of
    its own; about a quarter of an hour on two cores.

    Example: `python -m benchmarks.systems --batch 8 --only concat,mmbt,me-fusion --out costs.json`
    """
    console = Console()
    if page:
        render(out.parent)
        return
    wanted = only.split(",") if only else list(SYSTEMS_MEASURED)
    if unknown := set(wanted) - set(SYSTEMS_MEASURED):
        raise typer.BadParameter(f"no system {', '.join(sorted(unknown))}; there are {', '.join(SYSTEMS_MEASURED)}")
    setting = {"vision": vision, "text": text, "image_size": image_size, "max_length": tokens, "batch": batch}
    here = {"setting": setting, "machine": machine()}
    kept = json.loads(out.read_text(encoding="utf-8")) if only and out.exists() else here | {"systems": []}
    if any(kept[name] != here[name] for name in here):
        raise typer.BadParameter(f"{out} was measured otherwise: measure all of it anew, or name another --out")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    data: dict[str, Any] = {**here, "date": datetime.date.today().isoformat(), "load": load, "systems": kept["systems"]}
    order = list(SYSTEMS_MEASURED)
    for name in wanted:
        found = in_process(cost_of, name, setting, rounds)
        console.print(f"{name}: {found['seconds']:.3f} s, {found['megabytes']:.0f} MB", highlight=False)
        lines = [one for one in data["systems"] if one["name"] != name] + [found]
        data["systems"] = sorted(lines, key=lambda one: order.index(one["name"]))
        out.parent.mkdir(parents=True, exist_ok=True)
        write_file(out, lambda path: path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8"))
    if (out.parent / "systems.md").exists() and out.name == "systems.json":
        render(out.parent)
    console.print(markdown(data["systems"]), highlight=False, soft_wrap=True)


def _step(name: str, setting: Mapping[str, Any]) -> tuple[Step, int, int]:
    """A training step, how many parameters train, and how many there are."""
    from mi2p_inject.recipes.config import make_config
    from mi2p_inject.recipes.systems import build_system
    from mi2p_inject.recipes.systems.auxiliary import add_auxiliary, load_auxiliary
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
    model = build_system(config, encoders, task)
    add_auxiliary(encoders, load_auxiliary(config.model), config.model)
    model = model.to(device).train()
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

    trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
    return step, trained, sum(one.numel() for one in model.parameters())


if __name__ == "__main__":
    typer.run(main)
