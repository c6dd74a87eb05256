"""What the paper reports in its Tables 3 to 6."""

from __future__ import annotations

from mi2p_inject.recipes.experiments.experiment import PaperFigures

__all__ = ["FIGURES"]

_THREE = ("accuracy", "macro_f1", "weighted_f1")

#: number of the table -> (data set, task) -> the paper's figures in percent
FIGURES: dict[int, dict[tuple[str, str], PaperFigures]] = {
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
