"""The model card of a run: README.md with its test metrics, data, encoders and limits."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mi2p_inject.checkpoint.card import card_text
from mi2p_inject.core.files.hub import is_repository
from mi2p_inject.recipes.characters import in_markdown
from mi2p_inject.recipes.config import Config
from mi2p_inject.recipes.data.tables.in_memory import IN_MEMORY, called
from mi2p_inject.recipes.metrics.metric_info import info_of, metrics_of

__all__ = ["card_of", "data_name", "plain_name", "without_paths"]

_MOST_CLASSES = 60
_ABSOLUTE = re.compile(r"(?<![\w./\\])(?:~|[A-Za-z]:)?[/\\][\w.-]+(?:[/\\][\w. -]*[\w.-])+")


def card_of(
    config: Config,
    numbers: Mapping[str, Any],
    card: Mapping[str, Any] | None = None,
    place: str = "path/to/this/folder",
) -> str:
    """The card of a run.

    Args:
        config: of the training.
        numbers: metrics.json.
        card: further metadata, as of `huggingface_hub.ModelCardData`: license, datasets, language, …
        place: how the run is named when it is loaded.

    Raises:
        CheckpointError: metadata that a model card cannot hold.
    """
    model = config.model
    title = model.system.describe(model)
    encoders = in_markdown(" + ".join(numbers["encoders"].values()))
    reads = "s and ".join(model.system.modalities)
    reads += f"s, and columns {_listed(config.data.column_names)}" if config.data.column_names else "s"
    lines = [
        f"# {title}: {encoders}",
        "",
        f"A classifier of {len(numbers['classes'])} classes from {reads}, "
        "trained with [mi2p_inject](https://github.com/mi2p-inject/mi2p_inject). It holds the weights of its encoders.",
        *_use(config, place),
        *_data(config, numbers),
        *_scores(numbers),
        *_training(config, numbers),
        *_limits(numbers),
    ]
    return card_text("\n".join(lines) + "\n", {**_metadata(config, numbers), **(card or {})})


def data_name(spec: str) -> str:
    """What a data set is called, without where it is.

    Examples:
        >>> data_name("crisismmd:/data/CrisisMMD"), data_name("/home/me/pictures.csv")
        ('crisismmd', 'pictures')
    """
    if called(Path(spec)) == IN_MEMORY:
        return IN_MEMORY
    known, colon, _ = spec.partition(":")
    return known if colon and len(known) > 1 else Path(spec).stem


def plain_name(name: str) -> str:
    """The name of an encoder, without where its folder is.

    Examples:
        >>> plain_name("me/model"), plain_name("/home/me/model"), plain_name("../model/")
        ('me/model', 'model', 'model')
    """
    path = "/" in name.replace("\\", "/") and not is_repository(name.rpartition(":")[2])
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2] if path else name


def without_paths(value: Any) -> Any:
    """A JSON value with the absolute paths in its texts cut down to their last part; names of mappings stay.

    Examples:
        >>> without_paths({"note": "in /home/me/my data/a.csv, line 3", "ratio": "3/4"})
        {'note': 'in a.csv, line 3', 'ratio': '3/4'}
    """
    if isinstance(value, str):
        return _ABSOLUTE.sub(lambda found: found[0].replace("\\", "/").rpartition("/")[2], value)
    if isinstance(value, Mapping):
        return {name: without_paths(one) for name, one in value.items()}
    return [without_paths(one) for one in value] if isinstance(value, (list, tuple)) else value


def _use(config: Config, place: str) -> list[str]:
    columns = {"image": config.data.image_col or "image", "text": config.data.text_col or "text"}
    given = {"image": '"cat.jpg"', "text": '"a small cat"'}
    cells = {columns[one]: given[one] for one in config.model.system.modalities}
    numeric, categorical = config.data.columns_by_kind
    cells |= dict.fromkeys(numeric, "1.5") | dict.fromkeys(categorical, '"a category"')
    row = ", ".join(f"{json.dumps(name, ensure_ascii=False)}: {cell}" for name, cell in cells.items())
    return [
        "",
        "## Use",
        "",
        "```python",
        "from mi2p_inject.recipes import load_run",
        "",
        f'run = load_run("{place}")',
        f"print(run.predict([{{{row}}}]), run.classes)",
        "```",
        "",
        f"or `mi2p predict {place} --data new.csv --out answers.csv`, after `pip install 'mi2p-inject[recipes]'`.",
    ]


def _data(config: Config, numbers: Mapping[str, Any]) -> list[str]:
    counts = ", ".join(f"{count} {split}" for split, count in numbers["splits"].items())
    classes = list(map(str, numbers["classes"]))
    more = f" and {len(classes) - _MOST_CLASSES} more" if len(classes) > _MOST_CLASSES else ""
    return [
        "",
        "## Data",
        "",
        f"{in_markdown(data_name(config.data.data))}: {counts} samples, {numbers['problem_type']}. No sample is in "
        "this repository. "
        "Their licence is not known here unless the metadata name it.",
        "",
        f"Classes: {_listed(classes[:_MOST_CLASSES])}{more}.",
    ]


def _scores(numbers: Mapping[str, Any]) -> list[str]:
    splits = [split for split in ("validation", "test") if split in numbers]
    if not splits:
        return ["", "## Scores", "", "None: there was neither a validation nor a test split."]
    always = numbers["baseline"]
    names = metrics_of(numbers[splits[-1]])
    head = [f"{split} [95 % interval]" for split in splits]
    lines = [
        "",
        "## Scores",
        "",
        f"| metric | {' | '.join(head)} | always {in_markdown(always['answer'])}, {splits[-1]} |",
    ]
    lines.append("|---" * (len(splits) + 2) + "|")
    for name in names:
        cells = [_interval(name, numbers[split][name]) if name in numbers[split] else "" for split in splits]
        base = always[splits[-1]].get(name)
        lines.append(f"| {info_of(name).title} | {' | '.join(cells)} | {'' if base is None else _number(name, base)} |")
    return lines


def _training(config: Config, numbers: Mapping[str, Any]) -> list[str]:
    changed = {name: value for name, value in config.changed().items() if name not in _ELSEWHERE}
    settings = ", ".join(_code(f"{name}={without_paths(value)}") for name, value in changed.items())
    parameters, step = numbers["parameters"], numbers["best_step"]
    best = f"the best by validation {info_of(numbers['selected_by']).title}"
    chosen = best if "validation" in numbers else "the last: there is no validation split"
    return [
        "",
        "## Training",
        "",
        f"{parameters['pretrained']:,} pre-trained and {parameters['new']:,} new parameters trained, seed "
        f"{config.run.seed}; the weights of step {step}, {chosen}. "
        f"Settings that differ from the defaults: {settings or 'none'}.",
    ]


def _limits(numbers: Mapping[str, Any]) -> list[str]:
    return [
        "",
        "## Limits",
        "",
        "- It knows its classes alone, whatever it is shown, and its scores are those of one split of one data set.",
        "- The licences of the encoders' pre-trained weights and of the data hold for what was derived from them.",
        *(f"- {in_markdown(line[0].upper() + line[1:])}." for line in numbers.get("remarks", ())),
    ]


def _metadata(config: Config, numbers: Mapping[str, Any]) -> dict[str, Any]:
    from huggingface_hub import EvalResult

    model, data = config.model, data_name(config.data.data)
    bases = [name for name in model.encoder_names.values() if is_repository(name) and model.pretrained]
    modalities = model.system.modalities
    kind = f"{modalities[0]}-classification" if len(modalities) == 1 else "image-text-classification"
    scores = numbers.get("test", {})
    results = [
        EvalResult(
            task_type=kind,
            dataset_type=data,
            dataset_name=data,
            dataset_split="test",
            metric_type=name,
            metric_name=info_of(name).title,
            metric_value=round(scores[name]["value"], 4),
        )
        for name in metrics_of(scores)
    ]
    return {
        "tags": [model.model, *({"text": ["text"], "image": ["image"]}.get("-".join(modalities), ["image", "text"]))],
        **({"base_model": bases} if bases else {}),
        **({"pipeline_tag": kind} if len(modalities) == 1 else {}),
        **({"model_name": f"{model.model} on {data}", "eval_results": results} if results else {}),
    }


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(in_markdown, names))


def _code(words: str) -> str:
    """As code, which no mark inside ends."""
    return f"`{' '.join(words.split()).replace('`', chr(39))}`"


#: options that say where something is
_ELSEWHERE = frozenset(["data", "image_root", "vision", "text", "auxiliary", "source_run", "source_cache", "log"])


def _interval(name: str, one: Mapping[str, float]) -> str:
    return f"{_number(name, one['value'])} [{_number(name, one['low'])}, {_number(name, one['high'])}]"


def _number(name: str, value: float) -> str:
    return f"{100 * value:.1f} %" if info_of(name).percent else f"{value:.3f}"
