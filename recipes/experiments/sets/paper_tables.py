"""The experiments of the paper's Tables 3 to 6, with its figures. A new one is a line here; so is a compared system."""

from __future__ import annotations

from typing import Any

from mi2p_inject.recipes.experiments.experiment import Experiment, ExperimentSet
from mi2p_inject.recipes.experiments.sets.encoder_sets import ENCODERS
from mi2p_inject.recipes.experiments.sets.paper_figures import FIGURES

__all__ = ["TABLES"]

_QUARTERS = ("first", "second", "third", "last")


def _line(
    name: str, title: str, paper_title: str, model: str, *compared_with: str, fusion: str = "", **more: Any
) -> Experiment:
    """An experiment with a densenet and a bert, or whatever ``vision`` and ``text`` name as roles."""
    roles = {"vision": more.pop("vision", "densenet"), "text": more.pop("text", "bert")}
    sources = more.pop("sources", ())
    settings = {"model": model, **({"fusion": fusion} if fusion else {}), **more}
    return Experiment(name, title, settings, roles, compared_with, sources=sources, paper_title=paper_title)


def _apart(name: str, title: str, *averages: str, compared_with: tuple[str, ...] = ()) -> Experiment:
    """The mean of the probabilities of models that were trained apart."""
    return Experiment(name, title, compared_with=compared_with, averages=averages)


#: the late fusions of plain encoders that an expanded system is held to
_LATE = ("score-own-losses", "score-apart", "concat", "concat-own-losses")

#: systems of the literature; docs/systems.md says what each takes of the encoders
_COMPARED = (
    _line("centralnet", "CentralNet of {vision} and {text}", "CentralNet", "centralnet"),
    *(
        _line(name, f"{title} of {{vision}} and {{text}}", paper_title, "late-fusion", fusion=name)
        for name, title, paper_title in (
            ("gmu", "gated multimodal unit", "GMU"),
            ("compact-bilinear", "compact bilinear pooling", "CBP"),
            ("gated-bilinear", "compact bilinear gated pooling", "CBGP"),
        )
    ),
    *(
        _line(title.lower(), f"{title} on {{vision}} and {{text}}", title, title.lower())
        for title in ("MMBT", "VisualBERT")
    ),
    # Not pooled: at 224 pixels 3 x 3 pixels of a map would be left; PixelBERT's authors have pictures of 800.
    _line(
        "pixelbert",
        "PixelBERT on {vision} and {text}",
        "PixelBERT",
        "pixelbert",
        system_options={"pool": 1},
    ),
    _line("vilt", "ViLT from random weights, pictures as {vision}, size of {text}", "ViT", "vilt"),
    _line("interbert", "InterBERT on {vision} and {text}", "", "interbert"),
)

_COMPARISON = (
    _line("vision", "{vision}", "Unimodal DenseNet", "vision"),
    _line("text", "{text}", "Unimodal BERT", "text"),
    # Late fusion at its strongest: trained jointly, jointly with a loss of each branch, and each branch by itself.
    _line(
        "score",
        "score fusion of {vision} and {text}",
        "Score Fusion",
        "late-fusion",
        fusion="score",
        branch_loss=False,
    ),
    _line(
        "score-own-losses",
        "score fusion of {vision} and {text}, each with its own loss too",
        "",
        "late-fusion",
        fusion="score",
        branch_loss=True,
    ),
    _apart("score-apart", "mean of {vision} and {text}, trained apart", "vision", "text"),
    _line(
        "concat",
        "feature concatenation of {vision} and {text}",
        "Feature Concat",
        "late-fusion",
        fusion="concat",
        branch_loss=False,
    ),
    _line(
        "concat-own-losses",
        "feature concatenation of {vision} and {text}, each with its own loss too",
        "",
        "late-fusion",
        fusion="concat",
        branch_loss=True,
    ),
    _line(
        "cross-attention",
        "cross-attention of {vision} and {text}",
        "Cross-attention",
        "late-fusion",
        fusion="cross-attention",
    ),
    *_COMPARED,
    _line("me-vision", "ME {vision}, reads {text}", "ME DenseNet", "me-vision", "vision", "text"),
    _line(
        "me-vision-tuned",
        "ME {vision}, reads {text} tuned on the task",
        "",
        "me-vision",
        "vision",
        "text",
        *_LATE,
        sources=("text",),
    ),
    _line(
        "me-vision-folds",
        "ME {vision}, reads {text} tuned on the task, out-of-fold in training",
        "",
        "me-vision",
        "vision",
        "text",
        *_LATE,
        sources=("text",),
        source_folds=4,
    ),
    _line("me-text", "ME {text}, reads {vision}", "ME BERT", "me-text", "text", *_LATE),
    _line(
        "me-text-folds",
        "ME {text}, reads {vision} tuned on the task, out-of-fold in training",
        "",
        "me-text",
        "text",
        *_LATE,
        sources=("vision",),
        source_folds=4,
    ),
    _line(
        "me-vision+text",
        "concatenation of ME {vision} and {text}",
        "",
        "me-vision+text",
        *_LATE,
        fusion="concat",
    ),
    _line(
        "vision+me-text",
        "concatenation of {vision} and ME {text}",
        "",
        "vision+me-text",
        *_LATE,
        fusion="concat",
    ),
    _apart(
        "me-vision-score-apart",
        "mean of ME {vision} and {text}, trained apart",
        "me-vision",
        "text",
        compared_with=_LATE,
    ),
    _apart(
        "me-score-apart",
        "mean of ME {vision} and ME {text}, trained apart",
        "me-vision",
        "me-text",
        compared_with=_LATE,
    ),
    _apart(
        "me-tuned-score-apart",
        "mean of ME {vision} with tuned source and ME {text}, trained apart",
        "me-vision-tuned",
        "me-text",
        compared_with=_LATE,
    ),
    _apart(
        "me-folds-score-apart",
        "mean of ME {vision} with tuned source, out-of-fold in training, and ME {text}, trained apart",
        "me-vision-folds",
        "me-text",
        compared_with=_LATE,
    ),
    _line(
        "me-score", "score fusion of ME {vision} and ME {text}", "ME Score Fusion", "me-fusion", "score", fusion="score"
    ),
    _line(
        "me-concat",
        "feature concatenation of ME {vision} and ME {text}",
        "ME Feature Concat",
        "me-fusion",
        "concat",
        fusion="concat",
    ),
    _line("me-gmu", "gated multimodal unit of ME {vision} and ME {text}", "", "me-fusion", "gmu", fusion="gmu"),
    _line(
        "me-cross-attention",
        "cross-attention of ME {vision} and ME {text}",
        "ME Cross-attention",
        "me-fusion",
        "cross-attention",
        fusion="cross-attention",
    ),
)

# The i-th of four equal parts of the default sites: DenseNet's four blocks, three of BERT's twelve layers each.
_ABLATION = (
    _line("vision", "{vision}", "DenseNet", "vision"),
    *(
        _line(
            f"vision-{i}",
            f"ME {{vision}}, {quarter} quarter of its sites, reads {{text}}",
            f"DenseNet + MI2P{{{i}}}",
            "me-vision",
            "vision",
            vision_layers=[f"{i}/4"],
        )
        for i, quarter in enumerate(_QUARTERS, start=1)
    ),
    _line(
        "vision-1-4",
        "ME {vision}, all of its sites, reads {text}",
        "DenseNet + MI2P{1-4}",
        "me-vision",
        "vision",
        "vision-4",
        vision_layers=["paper"],
    ),
    _line("text", "{text}", "BERT", "text"),
    *(
        _line(
            f"text-{3 * i - 2}-{3 * i}",
            f"ME {{text}}, {quarter} quarter of its sites, reads {{vision}}",
            f"BERT + MI2P{{{3 * i - 2}-{3 * i}}}",
            "me-text",
            "text",
            text_layers=[f"{i}/4"],
        )
        for i, quarter in enumerate(_QUARTERS, start=1)
    ),
    _line(
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
        _line(role, own, paper_title, modality, **{modality: role}),
        _line(
            f"me-{role}", f"ME {own}, reads {other}", f"ME {paper_title}", f"me-{modality}", role, **{modality: role}
        ),
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
    3: _table(3, "unimodal, fused and expanded models", _COMPARISON),
    4: _table(4, "unimodal, fused and expanded models", _COMPARISON),
    5: _table(5, "where units are injected", _ABLATION),
    6: _table(6, "other backbones", _SCALABILITY),
}
