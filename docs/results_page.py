"""docs/results.md from docs/results/, the metrics.json of `mi2p table`; `docs/make_tables.py` writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.calibration import DEFAULT_PRIOR
from mi2p_inject.recipes.config import Config
from mi2p_inject.recipes.experiments.picked import best_expanded, picking_metrics, rivals, strongest_fusion
from mi2p_inject.recipes.experiments.prose import picked_sentence, verdict
from mi2p_inject.recipes.experiments.report import markdown, marked_gain, significant
from mi2p_inject.recipes.experiments.sets.defaults import DEFAULTS

RESULTS = Path(__file__).parent / "results"
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
    "tabler": (
        "Tabler icons",
        "1,500 outline icons of an npm package (`@tabler/icons` 3.52.0), drawn at 128 pixels in one colour; up to "
        "four of their tags, without words of the category's name, are the texts, 23 categories the labels. Nothing "
        "was chosen on this set; 150 validation samples pick. No expanded system that was compared with late fusion by "
        "a gated unit (`gmu`) is surely better here, and the gated fusion of expanded models (`me-gmu`) is surely "
        "worse in log-loss; `me-text-folds` came later than the others, and log-loss picks it",
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
    "material": (
        "Material Design icons, several labels",
        "1,500 icons of an npm package (`@mdi/svg` 7.4.47), drawn at 128 pixels in one colour; up to three of their "
        "aliases are the texts, 44 tags the labels, one to four an icon. Nothing was chosen on this set. Five epochs "
        "are 145 steps here, and no run is at its best before the fourth: what is compared is how far each has come. "
        "With the default number of steps, and one seed, the same two are closer (below)",
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
_LONGER = (
    ": with the default number of steps",
    "Without `epochs`, so that there are 580 steps, one seed. Most of what five epochs show is how fast each model "
    "comes on.",
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
_BY_NAME = (
    ": split by the first word of a name",
    "Run first, with icons whose names begin alike in one split. That was careless: all of the commonest class "
    "(`brand-...`) were in training, so the splits have other shares of classes, and what is sure in training is "
    "not sure in the test. Validation picks `me-concat-me-text-apart` and `gmu` by both metrics: -1.7 [-4.7, 1.3] "
    "points, log-loss +0.205 [0.096, 0.310]. The reading check warned: with no seed was the interval of what the "
    "picture is worth to `me-text` above 0.",
)
#: set -> table -> the same
TRIED = {
    "tabler": {"table-3-by-name": _BY_NAME},
    "openmoji": {
        "table-3-literature": _LITERATURE,
        "table-5": _SITES,
        "table-6": _SCALABILITY,
        "table-defaults": _DEFAULTS,
        "table-pathway": _PATHWAY,
    },
    "material": {"table-3-longer": _LONGER},
    "openclipart": {
        "table-3-literature": _LITERATURE_GPU,
        "table-5": _SITES,
        "table-6": _SCALABILITY,
        "table-defaults": _DEFAULTS,
    },
}


def read(path: Path) -> Any:
    """What a file of JSON holds."""
    return json.loads(path.read_text(encoding="utf-8"))


def _unrun_defaults() -> str:
    """How many of the lines of the table of defaults stand in no file of results."""
    run = {name for path in RESULTS.glob("*/table-defaults.json") for name in read(path)["experiments"]}
    lines = [one.name for one in DEFAULTS.experiments]
    return f"{len([name for name in lines if name not in run])} of its {len(lines)} lines"


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
        "Not run yet: beside today's units, the systems of the literature other than GMU, CentralNet and, on OpenMoji,",
        "the bilinear fusions, and with several labels those other than GMU; of `mi2p table defaults`,",
        f"{_unrun_defaults()}.",
        "Systems of the literature have the same epochs, batches and rates as the others; nothing was tuned for them,",
        "while the defaults of expanded models were chosen on validation splits of such sets (not of Tux Paint's",
        "stamps, Oxygen's, Tabler's and Material Design's icons).",
    ]
    lines += [*_picks(), *_beside_concat()]
    for folder, (title, what) in SETS.items():
        found = {path.stem: read(path) for path in (RESULTS / folder).glob("*.json")}
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
    return "\n".join([*lines, *_calibration(read(RESULTS / "calibration.json")), ""])


def _picks() -> list[str]:
    """The best expanded system beside the strongest late fusion, on each set and by each metric that picks."""
    lines = [
        *("", "## Expanded systems beside late fusion", ""),
        "Both picked on the validation split, by its first metric or by log-loss; test split, three seeds. A share",
        "of few validation samples picks at random among systems that are close; log-loss uses how sure each answer",
        "is. Last to come were the means of a fusion and the text model, plain and expanded alike",
        "(`...-text-apart`); before them `me-text-folds`, and `me-concat` on three sets. Without the means log-loss",
        "picked `me-vision-score-apart` and `gmu` on OpenMoji (+1.0 [-0.9, 3.0] points, log-loss -0.029 [-0.066,",
        "0.007]) and on Oxygen's icons (+0.8 [-0.2, 1.8], -0.044 [-0.087, -0.008]), and `me-concat` and",
        "`concat-own-losses` on Tux Paint's stamps (+0.0 [-2.3, 2.3], +0.006 [-0.045, 0.059]). Nor is what",
        "validation picks the best of a test split: on OpenMoji `me-concat` without the text model beside it has",
        "86.8 points and 0.426, with it 84.3 and 0.445. Without `me-concat` accuracy picked `me-vision-folds` on",
        "Oxygen's icons (-2.7 [-4.5, -1.0] points beside `concat-own-losses`), and both metrics had, with several",
        "labels, systems that gain a little less.",
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
        numbers = read(path)
        experiments, (first, last) = numbers["experiments"], picking_metrics(numbers["metrics"])
        for by in (first, last):
            best, rival = best_expanded(experiments, by), strongest_fusion(experiments, by)
            gain = experiments[best]["gain"][rival]["test"]
            cells = [marked_gain(gain[one], numbers["metrics"][one]) for one in (first, last)]
            lines.append(f"| {title} | {numbers['metrics'][by]['title']} | {best} | {rival} | {' | '.join(cells)} |")
    return lines


_TOLD = ("accuracy", "log_loss")
_MOST = 4  # sets that a line of the one rival has


def _beside_concat() -> list[str]:
    """What expanded systems gain over the concatenation of plain encoders, on the sets of one label a sample."""
    tables = {title: read(RESULTS / folder / "table-3.json") for folder, (title, _) in SETS.items()}
    tables = {title: one for title, one in tables.items() if "accuracy" in one["metrics"]}
    names = {name: None for one in tables.values() for name, line in one["experiments"].items() if _gain(line)}
    lines = [
        *("", "## One rival on every set", ""),
        "Expanded systems that ran on most sets of one label a sample, minus the feature concatenation of the plain",
        "encoders (`concat`): points of accuracy and log-loss ↓, test split, three seeds; last how many of these",
        "differences are better and worse, with intervals that leave 0 out. Nothing below was picked by them.",
        *("", f"| | {' | '.join(tables)} | better, worse |", f"|---|{'---|' * (len(tables) + 1)}"),
    ]
    for name in names:
        gains = [_gain(one["experiments"].get(name, {})) for one in tables.values()]
        if sum(map(bool, gains)) >= _MOST:
            cells = [
                ", ".join(marked_gain(gain[kind], one["metrics"][kind]) for kind in _TOLD) if gain else "not run"
                for gain, one in zip(gains, tables.values(), strict=True)
            ]
            sure = [(kind, gain[kind]["value"]) for gain in gains if gain for kind in _TOLD if significant(gain[kind])]
            better = sum((value > 0) == (kind == "accuracy") for kind, value in sure)
            lines.append(f"| {name} | {' | '.join(cells)} | {better}, {len(sure) - better} |")
    return lines


def _gain(line: dict[str, Any]) -> Any:
    return line.get("gain", {}).get("concat", {}).get("test")


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
