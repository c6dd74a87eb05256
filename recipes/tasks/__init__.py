"""What is learned from a sample's labels: one class a kind, one table, open to kinds of other distributions."""

from __future__ import annotations

from mi2p_inject.recipes.tasks.base import Decision, Floats, Labels, Logits, Scorer, Task, scaled_logits
from mi2p_inject.recipes.tasks.multi_label import MultiLabel
from mi2p_inject.recipes.tasks.single_label import SingleLabel
from mi2p_inject.recipes.tasks.table import ENTRY_POINT_GROUP, TASKS, metric_names, task_of

__all__ = [
    "ENTRY_POINT_GROUP",
    "TASKS",
    "Decision",
    "Floats",
    "Labels",
    "Logits",
    "MultiLabel",
    "Scorer",
    "SingleLabel",
    "Task",
    "metric_names",
    "scaled_logits",
    "task_of",
]
