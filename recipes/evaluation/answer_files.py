"""Answers in a file, beside the records' own columns: CSV, JSON lines or Parquet, whole or not at all."""

from __future__ import annotations

import base64
import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mi2p_inject.core.files.atomic_write import write_file
from mi2p_inject.recipes.characters import decodable
from mi2p_inject.recipes.errors import RecipeError
from mi2p_inject.recipes.evaluation.answers import Answers
from mi2p_inject.recipes.paths import home_path

if TYPE_CHECKING:
    import pyarrow

__all__ = ["FORMATS", "check_answers_file", "write_answers"]

_BATCH = 1000  # records of a Parquet file that are written at a time
_SEVERAL = "|"  # between labels in a cell, as in the tables that are read

Line = dict[str, Any]


def check_answers_file(out: Path, data: str, *, overwrite: bool) -> None:
    """Whether the answers may be written there, before anything is read.

    Args:
        out: the file.
        data: what the answers are about; it is never overwritten.
        overwrite: replace a file.

    Raises:
        RecipeError: another ending than those of `FORMATS`, no folder that can be written, a file that is there
            already, or one in the data.
    """
    fix, source = "name another --out", home_path(data)
    if out.suffix.lower() not in FORMATS:
        raise RecipeError(
            f"--out {out}",
            expected=f"a file that ends in {', '.join(FORMATS)}",
            given=out.suffix or "none",
            fix="--out answers.csv",
        )
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK | os.X_OK):
        raise RecipeError(f"--out {out}: {out.parent} is no folder that can be written", fix=f"make it, or {fix}")
    if out.is_dir():
        raise RecipeError(f"--out {out} is a folder", expected="a file", fix=fix)
    if out.exists() and source.exists() and os.path.samefile(out, source):
        raise RecipeError(f"--out {out} is what is read", fix=fix)
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise RecipeError(f"--out {out} lies in the data folder {data}: it would be data of the next time", fix=fix)
    if out.exists() and not overwrite:
        raise RecipeError(f"--out {out} is there already", fix=f"add --overwrite to replace it, or {fix}")


def write_answers(answers: Answers, out: Path) -> list[str]:
    """A line for each record: its own columns as they are, ``id`` where they have none, the answer, ``problem``.

    The keys of the answer are named ``predicted_<key>``. What is a mapping in the answer (the probabilities) keeps its
    name, and is a column for each entry in CSV and Parquet: ``probabilities.<class>``. Where the own columns have such
    a name already, the new one ends in ``_2``.

    Args:
        answers: are made while they are written.
        out: the file, checked by `check_answers_file`.

    Returns:
        What a user should know.

    Raises:
        RecipeError: a record cannot be read, or the file cannot be written; no part of it is then there.
    """
    names = _names(answers)
    try:
        write_file(out, lambda file: FORMATS[out.suffix.lower()](file, answers, names))
    except OSError as error:
        raise RecipeError(
            f"cannot write {out}: {error.strerror or error}", fix="make room, or name another --out"
        ) from error
    renamed = [name for name in names.values() if name.endswith("_2")]
    return [f"the table has columns of these names: the new ones are {', '.join(renamed)}"] if renamed else []


def _names(answers: Answers) -> dict[str, str]:
    """Key of an answer (or ``key.entry``) -> the name of its column; "id" is left out where the table has one."""
    own = set(answers.records.columns)
    wanted = {} if "id" in own else {"id": "id"}
    for key, value in answers.example.items():
        if isinstance(value, Mapping):
            wanted |= {key: key} | {f"{key}.{entry}": f"{key}.{entry}" for entry in value}
        else:
            wanted[key] = f"predicted_{key}"
    wanted["problem"] = "problem"
    return {key: _free(name, own) for key, name in wanted.items()}


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_2"
    return name


def _unicode(columns: Iterable[str]) -> dict[str, str]:
    """Name of a column -> the name in the file: without half characters, which JSON's escapes can hold, and unlike."""
    found: dict[str, str] = {}
    for name in columns:
        found[name] = _free(decodable(name), set(found.values()))
    return found


def _nested(answers: Answers, names: Mapping[str, str]) -> Iterator[Line]:
    """Own columns and answers; mappings stay mappings."""
    for own, answer in zip(answers.records.own(), answers, strict=True):
        yield {**own, **{names[key]: value for key, value in answer.items() if key in names}}


def _flat(answers: Answers, names: Mapping[str, str]) -> Iterator[tuple[Line, Line]]:
    """Own columns, and answers with a column for each entry of a mapping."""
    for own, answer in zip(answers.records.own(), answers, strict=True):
        line: Line = {}
        for key, value in answer.items():
            example = answers.example.get(key)
            if isinstance(example, Mapping):
                line |= {names[f"{key}.{entry}"]: value and value[entry] for entry in example}
            elif key in names:
                line[names[key]] = value
        yield own, line


def _columns(answers: Answers, names: Mapping[str, str]) -> dict[str, Any]:
    """The new columns of a flat line, with an example of what they hold."""
    found: dict[str, Any] = {}
    for key, value in {"id": "", **answers.example, "problem": ""}.items():
        if isinstance(value, Mapping):
            found |= {names[f"{key}.{entry}"]: one for entry, one in value.items()}
        elif key in names:
            found[names[key]] = value
    return found


def _write_csv(path: Path, answers: Answers, names: Mapping[str, str]) -> None:
    columns = [*answers.records.columns, *_columns(answers, names)]
    with path.open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.writer(file)  # its line ends are CR LF: others leave a lone CR in a text unquoted
        writer.writerow(_unicode(columns).values())
        for own, line in _flat(answers, names):
            joined = {name: _SEVERAL.join(one) if isinstance(one, list) else one for name, one in line.items()}
            cells = {name: _cell(value) for name, value in (own | joined).items()}
            writer.writerow([cells.get(name, "") for name in columns])


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False, default=_text) if isinstance(value, _JSON) else _text(value)


_JSON = (bool, int, float, list, dict)


def _text(value: Any) -> str:
    """What JSON has no type for."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _write_jsonl(path: Path, answers: Answers, names: Mapping[str, str]) -> None:
    with path.open("wb") as file:
        for line in _nested(answers, names):
            text = json.dumps(line, ensure_ascii=False, default=_text)
            try:
                written = text.encode()
            except UnicodeEncodeError:  # half characters, which only escapes can hold
                written = json.dumps(line, default=_text).encode()
            file.write(written + b"\n")


def _write_parquet(path: Path, answers: Answers, names: Mapping[str, str]) -> None:
    import pyarrow
    import pyarrow.parquet

    own, new = _own_types(answers), _columns(answers, names)
    several = pyarrow.list_(pyarrow.string())
    types = own | {name: several if isinstance(value, list) else _type_of({type(value)}) for name, value in new.items()}
    as_text = {name for name, kind in own.items() if pyarrow.types.is_string(kind)}
    called = _unicode(types)
    schema = pyarrow.schema([(called[name], kind) for name, kind in types.items()])
    lines = (
        {called[name]: cell for name, cell in (_typed(own, as_text) | line).items()}
        for own, line in _flat(answers, names)
    )
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        while batch := list(islice(lines, _BATCH)):
            writer.write_batch(pyarrow.RecordBatch.from_pylist(batch, schema=schema))


def _own_types(answers: Answers) -> dict[str, pyarrow.DataType]:
    """Types of the own columns: a Parquet file's own; else one that holds all values, JSON text where none does."""
    import pyarrow.parquet

    tables = answers.records.tables
    if len(tables) == 1 and tables[0].suffix.lower() == ".parquet":
        schema = pyarrow.parquet.read_schema(tables[0])
        return dict(zip(schema.names, schema.types, strict=True))
    kinds: dict[str, set[type]] = {name: set() for name in answers.records.columns}
    for own in answers.records.own():
        for name, value in own.items():
            if value is not None:
                wide = isinstance(value, int) and not -(2**63) <= value < 2**63
                kinds[name].add(str if wide else type(value))
    return {name: _type_of(found) for name, found in kinds.items()}


def _type_of(found: set[type]) -> pyarrow.DataType:
    import pyarrow

    if found == {bool}:
        return pyarrow.bool_()
    if found and found <= {int, float}:
        return pyarrow.int64() if found == {int} else pyarrow.float64()
    return pyarrow.string()


def _typed(own: Line, as_text: set[str]) -> Line:
    return {name: _whole(value) if name in as_text else value for name, value in own.items()}


def _whole(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else _cell(value)
    return text.encode(errors="replace").decode()


#: ending -> writes a file of answers
FORMATS: dict[str, Callable[[Path, Answers, Mapping[str, str]], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}
