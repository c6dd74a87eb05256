"""Cells of a label column: one label, several, or something that must not become a class by accident."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from mi2p_inject.recipes.data.values import is_missing, missing_word, visible
from mi2p_inject.recipes.errors import RecipeError

__all__ = ["SEPARATOR", "check_labels", "labels_of"]

#: of several labels in one cell
SEPARATOR = "|"
_ENDS = (",", ";", "\n", "\uff0c", "\u3001", "\uff1b", "\uff5c")  # the last four are those of Chinese and Japanese
_OTHERS = (*_ENDS, SEPARATOR, "/", "+", "&", "\t")
_BRACKETS = {"[": "]", "(": ")", "{": "}"}
_JOINED = re.compile(r"""['"]\s+['"]""")  # numpy prints arrays without commas; Python joins such texts to one
_PRINTED = re.compile(r"(array|tensor|frozenset|deque|Index|Series|dict_keys)\(.*\)", re.DOTALL)
_EMPTY = frozenset({"set()", "frozenset()", "[nan]", "(nan,)", "{nan}"})
_ONE_HOT = re.compile(r"[01](\s+[01])+")
_LONGEST = 10_000
_FLAGS = frozenset({"0", "1", "0.0", "1.0", "True", "False"})


def labels_of(value: Any, several: bool, where: str) -> tuple[str, ...]:
    """The labels in a cell.

    Args:
        value: a text, a whole number, a list of them, or nothing.
        several: whether `SEPARATOR` separates labels.
        where: for messages.

    Raises:
        RecipeError: a mapping, bytes, a nested list, or a list that cannot be read.

    Examples:
        >>> labels_of("cat| dog", True, ""), labels_of("['cat', 'dog']", True, ""), labels_of("nan", True, "")
        (('cat', 'dog'), ('cat', 'dog'), ())
    """
    if isinstance(value, str) and (listed := _listed(value, where)) is not None:
        value = listed
    if isinstance(value, list | tuple | set):
        if any(isinstance(one, list | tuple | set | dict | bytes) for one in value):
            raise RecipeError(
                f"{where} holds a list of {type(next(iter(value))).__name__}",
                expected="a list of texts",
                fix="write the names of the classes, separated by |",
            )
        shown = [visible(str(one)) for one in value if not is_missing(one)]
        return tuple(one for one in shown if not missing_word(one, label=True))
    if is_missing(value):
        return ()
    if isinstance(value, dict | bytes):
        raise RecipeError(
            f"{where} holds a {type(value).__name__}",
            expected="a text, a whole number or a list",
            fix="write the name of the class",
        )
    parts = str(value).split(SEPARATOR) if several else [str(value)]
    return tuple(label for one in parts if (label := visible(one)) and not missing_word(label, label=True))


def _listed(cell: str, where: str) -> list[Any] | None:
    """The list that a text shows, as JSON or as Python writes it; None where it shows none."""
    text = cell.strip()
    if text in _EMPTY:
        return []
    if printed := _PRINTED.fullmatch(text):
        raise _several(f"{where} holds a printed {printed[1]}", text)
    if len(text) > _LONGEST or _BRACKETS.get(text[:1]) != text[-1:]:
        return None
    if _JOINED.search(text):
        raise _several(f"{where} holds a printed list without commas", text)
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        if isinstance(value, list | tuple | set):
            return sorted(value, key=str) if isinstance(value, set) else list(value)
    if text[0] in "[{" and "," in text:
        raise _several(f"{where} holds a printed list that cannot be read", text)
    return None


def check_labels(cells: Sequence[tuple[str, ...]], multi_label: bool | None, name: str) -> None:
    """Refuse labels that are several in one, or flags of all classes.

    Args:
        cells: the labels of each sample.
        multi_label: False: a label may look like several; it is one.
        name: of the data set, for messages.

    Raises:
        RecipeError: the parts of a label are labels elsewhere, a label begins or ends with a separator, or all labels
            are zeros and ones, as many in each cell.

    Examples:
        >>> check_labels([("Korea, North",), ("Korea, South",)], None, "countries")
    """
    widths = {len(cell) for cell in cells if cell}
    flags = len(widths) == 1 and widths != {1} and all(one in _FLAGS for cell in cells for one in cell)
    if flags and (any(len(set(cell)) < len(cell) for cell in cells) or len({*filter(None, cells)}) > 1):
        shown = next(list(cell) for cell in cells if cell)
        raise _several(f"{name}: the labels are lists of {widths.pop()} zeros and ones", str(shown)[:80])
    if multi_label is False:
        return
    labels = {label for cell in cells for label in cell}
    if labels and all(map(_ONE_HOT.fullmatch, labels)):
        raise _several(f"{name}: the labels are zeros and ones", ", ".join(map(repr, sorted(labels)[:3])))
    if loose := sorted(one for one in labels if one.startswith(_ENDS) or one.endswith(_ENDS)):
        raise _several(f"{name}: {len(loose)} labels begin or end with a separator", ", ".join(map(repr, loose[:3])))
    for separator in _OTHERS:
        parts = {label: [part for one in label.split(separator) if (part := one.strip())] for label in labels}
        uses = Counter(part for found in parts.values() for part in set(found))
        joined = sorted(one for one, found in parts.items() if len(found) > 1 and all(uses[part] > 1 for part in found))
        if joined:
            several = f"{len(joined)} labels look" if len(joined) > 1 else "one label looks"
            what = f"{name}: {several} like several in one cell"
            raise _several(what, ", ".join(map(repr, joined[:3])))


def _several(what: str, given: str) -> RecipeError:
    return RecipeError(
        what,
        expected="the name of the class, or the names of several",
        given=given[:200],
        fix=f"several labels? separate their names by {SEPARATOR}, or give a list in .jsonl or .parquet; "
        "if each is one name: --problem-type single-label",
    )
