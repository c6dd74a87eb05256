"""The table of tasks, open to those of other distributions."""

from __future__ import annotations

from contextlib import suppress

from mi2p_inject.core.registry import Registry
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.tasks.base import Task
from mi2p_inject.recipes.tasks.multi_label import MultiLabel
from mi2p_inject.recipes.tasks.single_label import SingleLabel

__all__ = ["ENTRY_POINT_GROUP", "TASKS", "metric_names", "task_of"]

ENTRY_POINT_GROUP = "mi2p_inject.tasks"

TASKS: Registry[type[Task]] = Registry(
    "task",
    ENTRY_POINT_GROUP,
    RecipeError,
    lambda given: given if isinstance(given, type) and issubclass(given, Task) else None,
    "a class of tasks (a subclass of mi2p_inject.recipes.tasks.Task)",
    {
        "single-label": SingleLabel,
        "multi-label": MultiLabel,
    },
)
"""Name -> class, built from the names of the classes. A new one is one class and one line here, or an entry point of
another distribution."""


def metric_names() -> tuple[str, ...]:
    """Every metric of every task that can be loaded: a broken distribution breaks nobody who does not use it."""
    found: dict[str, None] = {}
    for name in TASKS:
        with suppress(RecipeError):
            found |= dict.fromkeys((*TASKS[name].metrics, *TASKS[name].ranking_metrics))
    return tuple(found)


def task_of(name: str | None, classes: tuple[str, ...], *, multi_label: bool) -> Task:
    """The task of a data set.

    Args:
        name: of the table; None: as the data are.
        classes: name of each class.
        multi_label: whether the labels of the data are lists.

    Raises:
        RecipeError: an unknown name (the closest is named), or a task of other labels.

    Examples:
        >>> task_of(None, ("a", "b"), multi_label=True).name
        'multi-label'
    """
    task = TASKS[name or ("multi-label" if multi_label else "single-label")](classes)
    if task.multi_label != multi_label:
        kinds = {True: "any number of labels a sample", False: "one label a sample"}
        raise RecipeError(
            f"problem_type {task.name!r} does not fit the data",
            expected=kinds[task.multi_label],
            given=kinds[multi_label],
            fix="leave problem_type out, or name another one",
        )
    return task
