"""The experiments of the paper's Tables 3 to 6, with its figures; those of 3 and 4 are in `comparison`."""

from __future__ import annotations

from mi2p_inject.recipes.experiments.experiment import Experiment, ExperimentSet
from mi2p_inject.recipes.experiments.sets.comparison import COMPARISON
from mi2p_inject.recipes.experiments.sets.encoder_sets import ENCODERS
from mi2p_inject.recipes.experiments.sets.paper_figures import FIGURES
from mi2p_inject.recipes.experiments.sets.paper_lines import line

__all__ = ["TABLES"]

_QUARTERS = ("first", "second", "third", "last")


# The i-th of four equal parts of the default sites: DenseNet's four blocks, three of BERT's twelve layers each.
_ABLATION = (
    line("vision", "{vision}", "DenseNet", "vision"),
    *(
        line(
            f"vision-{i}",
            f"ME {{vision}}, {quarter} quarter of its sites, reads {{text}}",
            f"DenseNet + MI2P{{{i}}}",
            "me-vision",
            "vision",
            vision_layers=[f"{i}/4"],
        )
        for i, quarter in enumerate(_QUARTERS, start=1)
    ),
    line(
        "vision-1-4",
        "ME {vision}, all of its sites, reads {text}",
        "DenseNet + MI2P{1-4}",
        "me-vision",
        "vision",
        "vision-4",
        vision_layers=["paper"],
    ),
    line("text", "{text}", "BERT", "text"),
    *(
        line(
            f"text-{3 * i - 2}-{3 * i}",
            f"ME {{text}}, {quarter} quarter of its sites, reads {{vision}}",
            f"BERT + MI2P{{{3 * i - 2}-{3 * i}}}",
            "me-text",
            "text",
            text_layers=[f"{i}/4"],
        )
        for i, quarter in enumerate(_QUARTERS, start=1)
    ),
    line(
        "text-1-12",
        "ME {text}, all of its sites, reads {vision}",
        "BERT + MI2P{1-12}",
        "me-text",
        "text",
        "text-10-12",
        text_layers=["paper"],
    ),
)


def _pair(role: str, paper_title: str, modality: str) -> tuple[Experiment, Experiment]:
    """A backbone alone, and expanded with the other modality's usual encoder."""
    own, other = ("{vision}", "{text}") if modality == "vision" else ("{text}", "{vision}")
    return (
        line(role, own, paper_title, modality, **{modality: role}),
        line(f"me-{role}", f"ME {own}, reads {other}", f"ME {paper_title}", f"me-{modality}", role, **{modality: role}),
    )


_SCALABILITY = (
    *_pair("resnet", "ResNet-50", "vision"),
    *_pair("xlnet", "XLNet", "text"),
    *_pair("clip-text", "CLIP-Text-Encoder", "text"),
    *_pair("clip-image", "CLIP-Img-Encoder", "vision"),
)


def _table(number: int, title: str, experiments: tuple[Experiment, ...]) -> ExperimentSet:
    figures = dict(FIGURES[number])
    if humanitarian := figures.get(("crisismmd", "humanitarian")):
        figures["crisismmd", ""] = humanitarian  # the task that CrisisMMD's loader takes where none is named
    return ExperimentSet(
        name=f"table {number}",
        title=f"Table {number}: {title}",
        experiments=experiments,
        encoders=ENCODERS,
        preset="paper",
        settings={"keep_weights": False},
        paper=figures,
        held_to_rivals=True,
    )


#: number of the paper's table -> its experiments
TABLES: dict[int, ExperimentSet] = {
    3: _table(3, "unimodal, fused and expanded models", COMPARISON),
    4: _table(4, "unimodal, fused and expanded models", COMPARISON),
    5: _table(5, "where units are injected", _ABLATION),
    6: _table(6, "other backbones", _SCALABILITY),
}
