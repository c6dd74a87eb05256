"""Writes what the docs take from elsewhere: `python docs/make_tables.py`. A test compares.

docs/adapters.md from the adapter table; docs/settings.md from the fields of recipes/config; docs/support.md
from docs/support.json, which `mi2p sweep --json` wrote; the
table and the sentences in the README from docs/demo/, the metrics.json of `mi2p demo` with three seeds; docs/results.md
from docs/results/, those of `mi2p table`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks/ is a tool of the checkout; no wheel holds it

from benchmarks.calibration import DEFAULT_PRIOR
from benchmarks.sweep.report import render as render_support
from mi2p_inject.adapters import Adapter, adapters
from mi2p_inject.recipes.config import Config
from mi2p_inject.recipes.config.describe import settings_page
from mi2p_inject.recipes.experiments.picked import best_expanded, picking_metrics, rivals, strongest_fusion
from mi2p_inject.recipes.experiments.prose import gain_sentences, picked_sentence, verdict
from mi2p_inject.recipes.experiments.report import markdown, marked_gain

DOCS = Path(__file__).parent
ADAPTERS, README, DEMO = DOCS / "adapters.md", DOCS.parent / "README.md", DOCS / "demo"
SUPPORT, SETTINGS = DOCS / "support.json", DOCS / "settings.md"
RESULTS = DOCS / "results"
SETS = {
    "openmoji": ("OpenMoji", "pictures of emoji with their names, from two wheels (`pip install mi2p-inject[demo]`)"),
    "tuxpaint": (
        "Tux Paint's stamps",
        "pictures with a sentence each (`apt-get install tuxpaint-stamps-default`); 421 to train on, in 112 steps. No "
        "default was chosen on this set",
    ),
    "oxygen": (
        "Oxygen icons",
        "1,162 icons of KDE's Oxygen theme (`apt-get install oxygen-icon-theme`) in their largest size from 48 to 128 "
        "pixels, without links, emblems, flags and animations; file names are the texts, folders the labels. Nothing "
        "was chosen on this set; 117 validation samples pick",
    ),
    "openclipart": (
        "Open Clip Art",
        "drawings with their titles (`apt-get install openclipart-png openclipart-svg`); for Table 3 reduced to "
        "a shorter side of 220 pixels beforehand, which makes a few more of them equal",
    ),
    "openclipart-keywords": (
        "Open Clip Art, several labels",
        "the same drawings and titles; the labels are keywords, several a drawing, and what the thresholds of a report "
        "are for",
    ),
}
#: tables that stand beside the main ones: what tells them apart, and what came of it
_LITERATURE = (
    ": systems of the literature",
    "Lines without an expanded model, made before probabilities were calibrated: accuracy and F1 compare with those of "
    "the table above, log-loss and calibration error do not. Lines of both tables are the same trainings on another "
    "machine: they differ by what arithmetic in another order makes of three seeds.",
)
_LITERATURE_GPU = (
    _LITERATURE[0],
    f"{_LITERATURE[1]} The pictures were reduced anew since, so groups and split differ a little. The systems of the "
    "literature (`centralnet` to `interbert`) were trained on a GPU (NVIDIA H200), the other lines on a CPU, all in "
    "float32.",
)
_SITES = (
    "",
    "One quarter of the sites after the other, and all of them, with the units and rates that are the defaults. An "
    "image encoder's default sites, the last third, are those of its last quarter here, a text encoder's, the last "
    "sixth, are a part of its last quarter. All sites take more time (benchmarks c and d): in pictures they are no "
    "better than the last quarter, in texts they are worse than no unit at all.",
)
_DEFAULTS = (
    "",
    "Beside each default one choice, to be judged by the validation columns: what `mi2p` takes by itself, what it "
    "takes besides, and which losses a concatenation has. Own losses are a default by log-loss, and by what is left "
    "where a modality is withheld (Table 3); accuracy on the validation split is no better with them.",
)
_PATHWAY = (
    "",
    "The control has the entries of each auxiliary matrix in random order: equal statistics, nothing learned. All "
    "three transformers start at random and train for six epochs.",
)
_SCALABILITY = (
    "",
    "Small encoders with random weights learn little by themselves, and read a pre-trained one: these gains say what "
    "injection carries over into any architecture, not what it adds to a pre-trained one.",
)
#: set -> table -> the same
TRIED = {
    "openmoji": {
        "table-3-literature": _LITERATURE,
        "table-5": _SITES,
        "table-6": _SCALABILITY,
        "table-defaults": _DEFAULTS,
        "table-pathway": _PATHWAY,
    },
    "openclipart": {
        "table-3-literature": _LITERATURE_GPU,
        "table-5": _SITES,
        "table-6": _SCALABILITY,
        "table-defaults": _DEFAULTS,
    },
}
BEGIN, END = "<!-- docs/demo -->", "<!-- end -->"


def render_readme(text: str) -> str:
    """The README with what the demo gave between its two marks."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{render_demo()}\n{END}{rest.split(END)[1]}"


def render_demo() -> str:
    """The table of the demo, and its differences in sentences, as Markdown."""
    numbers = _read(DEMO / "demo.json")
    sentences = [f"- {one}" for one in gain_sentences([numbers], next(iter(numbers["metrics"])))]
    return "\n".join([markdown(numbers), *sentences])


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def render_adapters() -> str:
    """The page of the adapter table, as Markdown."""
    lines = [
        "# Models with an adapter",
        "",
        "Generated by `python docs/make_tables.py` from `adapters/`; do not edit.",
        "",
        "Headed models (`BertForSequenceClassification`, …) and wrappers are found by the encoder inside them. A",
        "source in a wrapper whose forward does something of its own is run and read as that wrapper.",
        "`*` stands for one segment of a path. Heads are what a unit takes by default, where they divide.",
        "",
        "| adapter | library | reads | classes | default sites | layout | features | pooled | heads |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_line(adapter) for adapter in adapters()), ""])


def _line(adapter: Adapter) -> str:
    classes = ", ".join(f"`{name.rsplit('.', 1)[-1]}`" for name in adapter.classes)
    sites = "its layers" if callable(adapter.sites) else ", ".join(f"`{site}`" for site in adapter.sites)
    layout = f"{adapter.layout or 'inferred'}{' patches' if adapter.patches is not None else ''}"
    readout = adapter.readout
    path = "depends" if callable(readout.path) else f"`{readout.path}`" if readout.path else ""
    features = " of ".join(part for part in (path, f"`{readout.call}`") if part)
    return (
        f"| {adapter.name} | {adapter.library} | {adapter.modality} | {classes} | {sites} | {layout} | {features} "
        f"| {readout.pooled} | {adapter.num_heads} |"
    )


def render_results() -> str:
    """The page of the paper's tables on data that anybody can install, as Markdown."""
    lines = [
        "# The paper's tables on data that install offline",
        "",
        "Generated by `python docs/make_tables.py` from `docs/results/`, which `mi2p table` wrote; do not edit.",
        "",
        "These are not the paper's data sets, and the backbones are small: they show what injection does here, not",
        "what the paper's figures are. A system is titled by the encoders that ran; the paper's line stands beside.",
        "Bold: the 95 % interval of the paired difference leaves 0 out, uncorrected for how many are compared.",
        "",
        "Not run yet: of the systems of the literature others than GMU and CentralNet beside today's units, and any of",
        "them with several labels; there `vision+me-text`; all lines of `defaults`. Systems of the literature",
        "have the same epochs, batches and rates as the others; nothing was tuned for them, while the defaults of",
        "expanded models were chosen on validation splits of such sets (not of Tux Paint's stamps and Oxygen's icons).",
    ]
    lines += _picks()
    for folder, (title, what) in SETS.items():
        found = {path.stem: _read(path) for path in (RESULTS / folder).glob("*.json")}
        if found:
            main = [numbers for stem, numbers in sorted(found.items()) if stem not in TRIED.get(folder, {})]
            picks = [picked_sentence(numbers, by) for numbers in main for by in picking_metrics(numbers["metrics"])]
            picked = [line for one in picks if one for line in (one, "")]
            lines += ["", f"## {title}", "", f"{what[0].upper()}{what[1:]}.", "", *picked, *_verdict(main)]
        for stem, numbers in sorted(found.items()):
            heading, note = TRIED.get(folder, {}).get(stem, ("", ""))
            if heading == _LITERATURE[0]:
                numbers, beside = _without_expanded(numbers), [note, ""]
            else:
                beside = [note, "", *_verdict([numbers]), ""] if note else []
            title = f"### {numbers['recipe'].capitalize()}{heading}"
            lines += ["", title, "", *beside, _command(numbers), "", markdown(numbers).strip()]
    return "\n".join([*lines, *_calibration(_read(RESULTS / "calibration.json")), ""])


def _picks() -> list[str]:
    """The best expanded system beside the strongest late fusion, on each set and by each metric that picks."""
    lines = [
        *("", "## Expanded systems beside late fusion", ""),
        "Both picked on the validation split, by its first metric or by log-loss; test split, three seeds. A share of",
        "few validation samples picks at random among systems that are close; log-loss uses how sure each answer is.",
        *(
            "",
            "| set | picked by | expanded | late fusion | first metric, points | log-loss ↓ |",
            "|---|---|---|---|---|---|",
        ),
    ]
    for folder, (title, _) in SETS.items():
        path = RESULTS / folder / "table-3.json"
        if not path.exists():
            continue
        numbers = _read(path)
        experiments, (first, last) = numbers["experiments"], picking_metrics(numbers["metrics"])
        for by in (first, last):
            best, rival = best_expanded(experiments, by), strongest_fusion(experiments, by)
            gain = experiments[best]["gain"][rival]["test"]
            cells = [marked_gain(gain[one], numbers["metrics"][one]) for one in (first, last)]
            lines.append(f"| {title} | {numbers['metrics'][by]['title']} | {best} | {rival} | {' | '.join(cells)} |")
    return lines


def _calibration(tables: list[dict[str, Any]]) -> list[str]:
    """What a temperature does to the log-loss of samples that did not choose it."""
    priors = list(tables[0]["lines"][0]["log_loss"])
    shown = [f"{name}{' (the default)' if name == DEFAULT_PRIOR else ''}" for name in priors]
    lines = [
        *("", "## Calibrated probabilities", ""),
        "Log-loss on validation samples that did not fit the temperature, mean over all runs of a table, five draws of",
        "the groups that did; no test split is read. In brackets: the share of runs whose log-loss falls. A prior is",
        "the standard deviation of the temperature's logarithm. Written by `python -m benchmarks.calibration`.",
        *("", f"| runs | groups that fit | {' | '.join(shown)} |", f"|---|---|{'---|' * len(priors)}"),
    ]
    for table in tables:
        for line in table["lines"]:
            better = {name: f" ({share:.0%})" for name, share in line["better"].items()}
            cells = [f"{loss:.3f}{better.get(name, '')}" for name, loss in line["log_loss"].items()]
            groups = line["groups"] or "four fifths"
            lines.append(f"| {table['runs']} on {table['data']} | {groups} | {' | '.join(cells)} |")
    return lines


def _without_expanded(numbers: dict[str, Any]) -> dict[str, Any]:
    """A table's lines of one encoder and of fusions of plain ones: its expanded ones are in a later table."""
    lines = numbers["experiments"]
    fusions = rivals(lines)
    plain = [name for name, line in lines.items() if name in fusions or len(line["encoders"]) == 1]
    return {**numbers, "experiments": {name: lines[name] for name in plain}}


def _verdict(tables: list[dict[str, Any]]) -> list[str]:
    """Which differences in the first metric are significant, which are not, which are losses."""
    titles = {"better": "Better", "worse": "Worse", "neither": "No significant difference"}
    first = next(iter(tables[0]["metrics"].values()))["title"]
    found = verdict(tables)
    return [
        f"{first[0].upper()}{first[1:]}, in points:",
        "",
        *(f"- {title} ({len(found[kind])}): {', '.join(found[kind]) or 'none'}." for kind, title in titles.items()),
    ]


def _command(numbers: dict[str, Any]) -> str:
    """What was typed, but for the folders."""
    usual, settings = Config().to_json(), numbers["settings"]
    of_experiments = {"data", "task", "model", "fusion", "vision", "text", "seed", "keep_weights"}
    sets = ", ".join(
        f"`{name}={json.dumps(value)}`"
        for name, value in settings.items()
        if name not in of_experiments and value != usual.get(name, value)
    )
    data = (
        f"{numbers['data']['name'].partition(' (')[0]}{' --task ' + settings['task'] if settings.get('task') else ''}"
    )
    typed = f"mi2p {numbers['recipe']} --data {data} --encoders {numbers['encoders']} --preset practical"
    return f"`{typed}`, with {sets}."


if __name__ == "__main__":
    if any(RESULTS.glob("*/*.json")):
        RESULTS.with_suffix(".md").write_text(render_results(), encoding="utf-8")
    SETTINGS.write_text(settings_page(), encoding="utf-8")
    ADAPTERS.write_text(render_adapters(), encoding="utf-8")
    SUPPORT.with_suffix(".md").write_text(render_support(SUPPORT), encoding="utf-8")
    README.write_text(render_readme(README.read_text(encoding="utf-8")), encoding="utf-8")
