"""The experiments of the paper's Tables 3 and 4. A new one is a line here; so is a compared system."""

from __future__ import annotations

from mi2p_inject.recipes.experiments.sets.paper_lines import apart, line

__all__ = ["COMPARISON"]

#: the late fusions of plain encoders that an expanded system is held to
_LATE = ("score-own-losses", "score-apart", "concat", "concat-own-losses")

#: systems of the literature; docs/systems.md says what each takes of the encoders
_COMPARED = (
    line("centralnet", "CentralNet of {vision} and {text}", "CentralNet", "centralnet"),
    *(
        line(name, f"{title} of {{vision}} and {{text}}", paper_title, "late-fusion", fusion=name)
        for name, title, paper_title in (
            ("gmu", "gated multimodal unit", "GMU"),
            ("compact-bilinear", "compact bilinear pooling", "CBP"),
            ("gated-bilinear", "compact bilinear gated pooling", "CBGP"),
        )
    ),
    *(
        line(title.lower(), f"{title} on {{vision}} and {{text}}", title, title.lower())
        for title in ("MMBT", "VisualBERT")
    ),
    # Not pooled: at 224 pixels 3 x 3 pixels of a map would be left; PixelBERT's authors have pictures of 800.
    line(
        "pixelbert",
        "PixelBERT on {vision} and {text}",
        "PixelBERT",
        "pixelbert",
        system_options={"pool": 1},
    ),
    line("vilt", "ViLT from random weights, pictures as {vision}, size of {text}", "ViT", "vilt"),
    line("interbert", "InterBERT on {vision} and {text}", "", "interbert"),
)

COMPARISON = (
    line("vision", "{vision}", "Unimodal DenseNet", "vision"),
    line("text", "{text}", "Unimodal BERT", "text"),
    # Late fusion at its strongest: trained jointly, jointly with a loss of each branch, and each branch by itself.
    line(
        "score",
        "score fusion of {vision} and {text}",
        "Score Fusion",
        "late-fusion",
        fusion="score",
        branch_loss=False,
    ),
    line(
        "score-own-losses",
        "score fusion of {vision} and {text}, each with its own loss too",
        "",
        "late-fusion",
        fusion="score",
        branch_loss=True,
    ),
    apart("score-apart", "mean of {vision} and {text}, trained apart", "vision", "text"),
    line(
        "concat",
        "feature concatenation of {vision} and {text}",
        "Feature Concat",
        "late-fusion",
        fusion="concat",
        branch_loss=False,
    ),
    line(
        "concat-own-losses",
        "feature concatenation of {vision} and {text}, each with its own loss too",
        "",
        "late-fusion",
        fusion="concat",
        branch_loss=True,
    ),
    apart(
        "concat-text-apart",
        "mean of the concatenation of {vision} and {text}, and of {text}, trained apart",
        "concat",
        "text",
    ),
    line(
        "cross-attention",
        "cross-attention of {vision} and {text}",
        "Cross-attention",
        "late-fusion",
        fusion="cross-attention",
    ),
    *_COMPARED,
    apart(
        "gmu-text-apart",
        "mean of the gated multimodal unit of {vision} and {text}, and of {text}, trained apart",
        "gmu",
        "text",
    ),
    line("me-vision", "ME {vision}, reads {text}", "ME DenseNet", "me-vision", "vision", "text"),
    line(
        "me-vision-tuned",
        "ME {vision}, reads {text} tuned on the task",
        "",
        "me-vision",
        "vision",
        "text",
        *_LATE,
        sources=("text",),
    ),
    line(
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
    line("me-text", "ME {text}, reads {vision}", "ME BERT", "me-text", "text", *_LATE),
    line(
        "me-text-folds",
        "ME {text}, reads {vision} tuned on the task, out-of-fold in training",
        "",
        "me-text",
        "text",
        *_LATE,
        sources=("vision",),
        source_folds=4,
    ),
    line(
        "me-vision+text",
        "concatenation of ME {vision} and {text}",
        "",
        "me-vision+text",
        *_LATE,
        fusion="concat",
    ),
    line(
        "vision+me-text",
        "concatenation of {vision} and ME {text}",
        "",
        "vision+me-text",
        *_LATE,
        fusion="concat",
    ),
    apart(
        "me-vision-score-apart",
        "mean of ME {vision} and {text}, trained apart",
        "me-vision",
        "text",
        compared_with=_LATE,
    ),
    apart(
        "me-score-apart",
        "mean of ME {vision} and ME {text}, trained apart",
        "me-vision",
        "me-text",
        compared_with=_LATE,
    ),
    apart(
        "me-tuned-score-apart",
        "mean of ME {vision} with tuned source and ME {text}, trained apart",
        "me-vision-tuned",
        "me-text",
        compared_with=_LATE,
    ),
    apart(
        "me-folds-score-apart",
        "mean of ME {vision} with tuned source, out-of-fold in training, and ME {text}, trained apart",
        "me-vision-folds",
        "me-text",
        compared_with=_LATE,
    ),
    line(
        "me-score", "score fusion of ME {vision} and ME {text}", "ME Score Fusion", "me-fusion", "score", fusion="score"
    ),
    line(
        "me-concat",
        "feature concatenation of ME {vision} and ME {text}",
        "ME Feature Concat",
        "me-fusion",
        "concat",
        fusion="concat",
    ),
    apart(
        "me-concat-text-apart",
        "mean of the concatenation of ME {vision} and ME {text}, and of {text}, trained apart",
        "me-concat",
        "text",
        compared_with=("concat-text-apart", "gmu-text-apart"),
    ),
    apart(
        "me-concat-me-text-apart",
        "mean of the concatenation of ME {vision} and ME {text}, and of ME {text}, trained apart",
        "me-concat",
        "me-text",
        compared_with=("concat-text-apart", "gmu-text-apart"),
    ),
    line("me-gmu", "gated multimodal unit of ME {vision} and ME {text}", "", "me-fusion", "gmu", fusion="gmu"),
    line(
        "me-cross-attention",
        "cross-attention of ME {vision} and ME {text}",
        "ME Cross-attention",
        "me-fusion",
        "cross-attention",
        fusion="cross-attention",
    ),
)
